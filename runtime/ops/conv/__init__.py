"""conv(x, name, layer, kind="none") -> y[t, c] = act(sum_j W[c, j] x[t - taps + 1 + j, c]).

A causal convolution over time of each channel by itself: x (n_tokens, n_channels), W (n_channels,
taps). The last taps - 1 inputs are state of ``layer``; before the sequence they are 0. Kinds:
"none", "silu".
"""

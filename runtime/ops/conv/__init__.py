"""conv(x, name, layer, kind="none", bias=None) -> y.

y[t, c] = act(b[c] + sum_j W[c, j] x[t - kernel_size + 1 + j, c]).

A causal convolution over time of each channel by itself: x (n_tokens, n_channels), W (n_channels,
kernel_size). The last kernel_size - 1 inputs are state of ``layer``; before the sequence they are
0. Kinds: "none", "silu". ``bias``: the tensor b (n_channels,), none for None.
"""

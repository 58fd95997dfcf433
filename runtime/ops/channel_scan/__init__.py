"""channel_scan(x, dt, b, c, layer, spec) -> y: Mamba's selective state space (arXiv 2312.00752).

x and dt (n_tokens, n_channels); b and c (n_tokens, d_state), shared by all channels. With the step
s = softplus(dt), the state h (d_state, n_channels) of ``layer`` becomes
h'[j, i] = exp(A[i, j] s[i]) h[j, i] + b[j] s[i] x[i] and y[i] = sum_j c[j] h'[j, i] + D[i] x[i].
``spec``: Mamba of ggq.models.layers.mamba, which names the tensors A (n_channels, d_state) and D.
"""

"""scan(x, dt, layer, spec) -> y: Mamba-2's selective state space (arXiv 2405.21060), head by head.

x (n_tokens, columns) holds the inputs of n_head heads of head_dim columns each, then B and C of
n_group groups of d_state columns; dt (n_tokens, n_head). Heads h of n_head / n_group neighbours
share a group. With the step s = softplus(dt + bias), the state S (d_state, head_dim) of ``layer``
becomes S' = exp(A s) S + B (s x)^T and y = S'^T C + D x. ``spec``: Mamba2 of
ggq.models.layers.mamba2, which names the tensors A, D and the bias.
"""

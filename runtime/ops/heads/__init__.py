"""heads(x, name) -> for every head h, x's columns of h times W[h].T: a matrix per head.

x (n_tokens, n_head * n_in) and W (n_head, n_out, n_in) give (n_tokens, n_head * n_out). Listeners
are told of each head as of an expert of that weight (ggq.runtime.ops.experts).
"""

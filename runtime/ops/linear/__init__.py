"""linear(x, name, bias=None) -> x @ W.T + b.

x (n_tokens, n_in), W (n_out, n_in), b (n_out,) give (n_tokens, n_out).
"""

"""linear(x, name, bias=None, rows=None) -> x @ W.T + b.

x (n_tokens, n_in), W (n_out, n_in), b (n_out,) give (n_tokens, n_out). ``rows`` (first, end) takes
those rows of W and b only: a part of a fused weight, whose parts are asked for in order.
"""

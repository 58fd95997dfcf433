"""join(a, b, n_head) -> for every head the columns of a, then those of b.

a (n_tokens, n_head * width_a) and b (n_tokens, n_head * width_b) give (n_tokens, n_head *
(width_a + width_b)).
"""

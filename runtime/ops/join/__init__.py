"""join(a, b, n_head, shared=False) -> for every head the columns of a, then those of b.

a (n_tokens, n_head * width_a) and b (n_tokens, n_head * width_b) give (n_tokens, n_head *
(width_a + width_b)). Where b is ``shared`` it is (n_tokens, width_b), the same for every head.
"""

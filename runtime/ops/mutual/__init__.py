"""mutual(q, k, v, spec, bounds) -> softmax(scale * q k^T) v by head, within stretches of rows.

q, k, v (n, n_head * head_dim) give the same shape. ``bounds``: where each stretch of rows that see
each other ends, ascending, the last n; None: all rows see all. ``spec``: `Attention`'s sizes and
scale. Nothing is kept of what was seen (arXiv 1706.03762; in one pass: arXiv 2205.14135).
"""

"""combine(y, routed, weighted=True) -> the weighted or the plain sum of each token's experts.

y (n_tokens * n_used, width) from `experts`, routed from `route`, give (n_tokens, width).
"""

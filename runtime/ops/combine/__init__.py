"""combine(y, routed) -> the weighted sum of each token's experts.

y (n_tokens * n_used, width) from `experts`, routed from `route`, give (n_tokens, width).
"""

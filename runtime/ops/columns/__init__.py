"""columns(x, first, width, group=None) -> columns [first, first + width) of every ``group`` ones.

x (n_tokens, k * group) gives (n_tokens, k * width); ``group`` defaults to the whole row.
"""

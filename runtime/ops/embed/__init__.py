"""embed(name, of="ids") -> row ids[t] of the table ``name`` per token: (n_tokens, width).

``of="positions"``: the rows of the tokens' positions.
"""

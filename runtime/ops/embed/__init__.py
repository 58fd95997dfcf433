"""embed(name, of="ids") -> row ids[t] of the table ``name`` per token: (n_tokens, width).

``of="positions"``: the rows of the tokens' positions; ``of="types"``: of the parts of a text that
they belong to, 0 unless a step says otherwise.
"""

"""embed(name, of="ids") -> row ids[t] of the table ``name`` per token: (n_tokens, width).

``of="positions"``: the rows of the tokens' positions; ``of="types"``: of the parts of a text that
they belong to, 0 unless a step says otherwise. In the rows of `EMBEDDING` pictures' tokens have the
rows that the step gives for them (ggq.runtime.ops.see), in other tables that of token 0.
"""

EMBEDDING = "token_embd.weight"

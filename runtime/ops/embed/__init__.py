"""embed(name) -> row ids[t] of the table ``name`` (n_vocab, width) per token: (n_tokens, width)."""

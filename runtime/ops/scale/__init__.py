"""scale(x, s) -> x * s for a number s, (n_tokens, width)."""

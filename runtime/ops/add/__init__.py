"""add(a, b) -> a + b, (n_tokens, width) each."""

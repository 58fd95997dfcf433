"""gain(x, name) -> x times the first row of the tensor ``name``, (n_tokens, width)."""

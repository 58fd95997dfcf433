"""given(rows) -> numpy's (n, width) as activations: what depends on a picture's size alone."""

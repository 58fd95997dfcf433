"""above(rows, x) -> numpy's (k, width) and below them x, (n, width): (k + n, width)."""

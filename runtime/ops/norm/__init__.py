"""norm(x, name, eps, kind="rms", width=None) -> x / rms(x) * w over groups of ``width`` columns.

x (n_tokens, k * width), w (width,) or (k, width), none where ``name`` is None; rms(x) =
sqrt(mean(x^2) + eps) (arXiv 1910.07467). "layer" subtracts the mean first (arXiv 1607.06450).
``width`` defaults to the whole row.
"""

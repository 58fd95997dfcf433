"""sparsify(x, multiplier) -> what of x lies above a cut-off of its row, (n_tokens, width).

max(0, x - mean - multiplier std), with the mean and the standard deviation (of the whole row, not
of a sample) of each row: of normal values a fixed share stays (Gemma 3n's Gaussian top-k).
"""

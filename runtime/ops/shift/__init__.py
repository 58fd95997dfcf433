"""shift(x, name) -> x plus the first row of the tensor ``name``, (n_tokens, width).

A norm's bias is such a row, and so is BERT's embedding of a text's first part.
"""

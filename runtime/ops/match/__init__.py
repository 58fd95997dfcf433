"""match(x, like) -> x scaled to the size of ``like``, (n_tokens, width) each.

x rms(like) / max(rms(x), sqrt(SMALLEST)), with rms(x) = sqrt(mean(x^2)) of a row (Gemma 3n).
"""

__all__ = ["SMALLEST"]

SMALLEST = 1e-5  # mean square

"""xielu(x, alpha_p, alpha_n, beta, eps) -> xIELU of x, (n_tokens, width) (arXiv 2411.13010).

beta x + p x^2 where x > 0, else beta x + n (exp(min(x, eps)) - 1 - x), with p = softplus(alpha_p)
and n = beta + softplus(alpha_n).
"""

import math

__all__ = ["slopes"]


def slopes(alpha_p: float, alpha_n: float, beta: float) -> tuple[float, float]:
    """Return p and n of the definition above."""
    return math.log1p(math.exp(alpha_p)), beta + math.log1p(math.exp(alpha_n))

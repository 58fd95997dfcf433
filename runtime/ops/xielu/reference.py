"""xielu in numpy."""

import numpy as np

from ggq.runtime.ops.xielu import slopes


def run(backend, x, alpha_p, alpha_n, beta, eps):
    """Return xIELU of x."""
    p, n = slopes(alpha_p, alpha_n, beta)
    return beta * x + np.where(x > 0, p * x * x, n * (np.expm1(np.minimum(x, eps)) - x))

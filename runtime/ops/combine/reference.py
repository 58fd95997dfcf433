"""combine in numpy."""

import numpy as np


def run(backend, y, routed):
    """Return the sum over each token's experts."""
    weights = routed[1]
    return np.einsum("tk,tkw->tw", weights, y.reshape(*weights.shape, -1))

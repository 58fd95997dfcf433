"""combine in numpy."""

import numpy as np


def run(backend, y, routed, weighted=True):
    """Return the sum over each token's experts."""
    weights = routed[1] if weighted else np.ones_like(routed[1])
    return np.einsum("tk,tkw->tw", weights, y.reshape(*weights.shape, -1))

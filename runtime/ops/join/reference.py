"""join in numpy."""

import numpy as np


def run(backend, a, b, n_head, shared=False):
    """Return the columns of both, head by head."""
    b = np.tile(b, n_head) if shared else b
    parts = [x.reshape(len(x), n_head, -1) for x in (a, b)]
    return np.concatenate(parts, axis=2).reshape(len(a), -1)

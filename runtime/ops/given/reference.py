"""given in numpy."""

import numpy as np


def run(backend, rows):
    """Return the rows."""
    return np.asarray(rows, np.float64)

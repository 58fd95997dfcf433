"""above in numpy."""

import numpy as np


def run(backend, rows, x):
    """Return the rows and those of x."""
    return np.concatenate([rows, x])

"""conv in numpy: all inputs so far are kept."""

import numpy as np

from ggq.runtime.ops.gate.reference import KINDS


def run(backend, x, name, layer, kind="none", bias=None):
    """Append x to the layer's inputs and return the outputs of its tokens."""
    weights = backend.array(name)
    size = weights.shape[1]
    past, _ = backend.cache["conv", layer]
    past.extend(x)
    inputs = np.concatenate((np.zeros((size - 1, x.shape[1])), past))[-(len(x) + size - 1) :]
    y = sum(weights[:, j] * inputs[j : j + len(x)] for j in range(size))
    y = y if bias is None else y + backend.array(bias)
    return y if kind == "none" else KINDS[kind](y)

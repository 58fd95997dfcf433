"""Weights for tests of back ends: float32 arrays under names, as a model file would hold them."""

import numpy as np

from ggq import quants
from ggq.runtime.engine.weights import Tensor


def float_weights(arrays):
    """Return name -> F32 tensor of float32 ``arrays``, name -> array."""
    kind = quants.get("F32")
    weights = {}
    for name, values in arrays.items():
        values = np.ascontiguousarray(values, np.float32)
        raw = kind.quantize(values.reshape(-1, values.shape[-1]))
        weights[name] = Tensor(name, values.shape, kind.ggml_id, raw)
    return weights


def distance(got, want):
    """Return max |got - want| / max |want|."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    return np.abs(got - want).max() / np.abs(want).max()

"""Weights for tests of back ends: float32 arrays under names, as a model file would hold them."""

from types import SimpleNamespace

import numpy as np

from ggq import quants


def float_weights(arrays):
    """Return name -> weight (type, shape, raw) of float32 ``arrays``, name -> array."""
    kind = quants.get("F32")
    return {
        name: SimpleNamespace(type=kind, shape=a.shape, raw=kind.quantize(np.atleast_2d(a)))
        for name, a in ((name, np.ascontiguousarray(a, np.float32)) for name, a in arrays.items())
    }


def distance(got, want):
    """Return max |got - want| / max |want|."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    return np.abs(got - want).max() / np.abs(want).max()


def file_weights(gguf):
    """Return name -> weight of every tensor of an open GGUF file."""
    return {
        name: SimpleNamespace(type=quants.by_id(t.type_id), shape=t.shape, raw=gguf.data(name))
        for name, t in gguf.tensors.items()
    }

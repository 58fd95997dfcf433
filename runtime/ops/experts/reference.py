"""experts in numpy, pair by pair: token-major, an expert is decoded when first chosen."""

import numpy as np

from ggq.runtime.ops.experts import expert_name


def run(backend, x, routed, name, bias=None, rows=None):
    """Return a row per pair."""
    ids = routed[0]
    inputs = x if len(x) == ids.size else np.repeat(x, ids.shape[1], axis=0)
    part = slice(*rows or (None,))
    weights = backend.array(name)[:, part]
    for listener in backend.linear_listeners:
        for e in np.unique(ids):
            listener(expert_name(name, e), inputs[ids.ravel() == e])
    out = np.stack([weights[e] @ row for e, row in zip(ids.ravel(), inputs, strict=True)])
    return out if bias is None else out + backend.array(bias)[ids.ravel()][:, part]

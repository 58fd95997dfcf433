"""route in numpy: ids (n_tokens, n_used) and float64 weights of the same shape."""

import numpy as np

from ggq.runtime.ops.route import TINY


def run(backend, logits, spec):
    """Return (ids, weights), best expert first."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores = {
        "softmax": lambda: shifted / shifted.sum(axis=-1, keepdims=True),
        "softmax_chosen": lambda: logits,
        "sigmoid": lambda: 0.5 * (1 + np.tanh(0.5 * logits)),
    }[spec.gating]()
    choice = scores if spec.bias is None else scores + backend.array(spec.bias)
    if spec.n_group > 1:
        choice = _grouped(choice, spec)
    ids = np.argsort(-choice, axis=-1, kind="stable")[:, : spec.n_used]
    weights = np.take_along_axis(scores, ids, axis=-1)
    if spec.gating == "softmax_chosen":
        weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
    if spec.normalize or spec.gating == "softmax_chosen":
        weights = weights / (weights.sum(axis=-1, keepdims=True) + TINY)
    if spec.scales is not None:
        weights = weights * backend.array(spec.scales)[ids]
    return ids, weights * spec.scale


def _grouped(choice, spec):
    """Return ``choice`` with -inf outside the best groups."""
    groups = choice.reshape(len(choice), spec.n_group, -1)
    best = np.sort(groups, axis=-1)[..., -2:].sum(axis=-1)
    kept = np.argsort(-best, axis=-1, kind="stable")[:, : spec.n_group_used]
    allowed = np.zeros(best.shape, bool)
    np.put_along_axis(allowed, kept, True, axis=-1)
    return np.where(allowed[..., None], groups, -np.inf).reshape(choice.shape)

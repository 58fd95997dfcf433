"""route in torch: ids (n_tokens, n_used) and float32 weights of the same shape."""

import torch

from ggq.runtime.ops.route import TINY


def run(backend, logits, spec):
    """Return (ids, weights), best expert first."""
    if spec.gating == "softmax":
        scores = torch.softmax(logits, dim=-1)
    else:
        scores = torch.sigmoid(logits) if spec.gating == "sigmoid" else logits
    choice = scores if spec.bias is None else scores + backend.tensor(spec.bias)
    if spec.n_group > 1:
        choice = _grouped(choice, spec)
    ids = torch.sort(choice, dim=-1, descending=True, stable=True).indices[:, : spec.n_used]
    weights = scores.gather(1, ids)
    if spec.gating == "softmax_chosen":
        weights = torch.softmax(weights, dim=-1)
    elif spec.normalize:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + TINY)
    if spec.scales is not None:
        weights = weights * backend.tensor(spec.scales)[ids]
    return ids, weights * spec.scale


def _grouped(choice, spec):
    """Return ``choice`` with -inf outside the best groups."""
    groups = choice.unflatten(1, (spec.n_group, -1))
    best = groups.topk(min(2, groups.shape[-1]), dim=-1).values.sum(dim=-1)
    order = torch.sort(best, dim=-1, descending=True, stable=True).indices
    kept = best.new_zeros(best.shape).scatter(1, order[:, : spec.n_group_used], 1.0)
    return groups.masked_fill(kept[..., None] == 0, float("-inf")).flatten(1)

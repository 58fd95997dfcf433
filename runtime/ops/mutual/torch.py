"""mutual in torch: all heads of a stretch at once."""

import torch
from torch.nn.functional import scaled_dot_product_attention


def run(backend, q, k, v, spec, bounds):
    """Return the mix of values."""
    ends = bounds or [len(q)]
    sizes = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    heads = [x.unflatten(1, (spec.n_head, -1)).transpose(0, 1).split(sizes, 1) for x in (q, k, v)]
    mixed = [scaled_dot_product_attention(*x, scale=spec.scale) for x in zip(*heads, strict=True)]
    return torch.cat(mixed, 1).transpose(0, 1).flatten(1)

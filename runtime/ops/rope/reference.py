"""rope in numpy."""

import numpy as np

from ggq.runtime.ops.rope import angles


def run(backend, x, n_head, rope):
    """Return x with the pairs of each head rotated."""
    factors = None if rope.factors is None else backend.array(rope.factors)
    cos, sin = (a[:, None, :] for a in angles(rope, backend.places, factors))
    heads = x.reshape(len(x), n_head, -1).copy()
    half = rope.dims // 2
    if rope.kind == "neox":
        first, second = np.s_[..., :half], np.s_[..., half : rope.dims]
    else:
        first, second = np.s_[..., 0 : rope.dims : 2], np.s_[..., 1 : rope.dims : 2]
    a, b = heads[first].copy(), heads[second].copy()
    heads[first], heads[second] = a * cos - b * sin, a * sin + b * cos
    return heads.reshape(x.shape)

"""turn in numpy."""

import numpy as np


def run(backend, x, n_head, angles, kind):
    """Return x with the pairs of each head turned."""
    if kind == "halves":
        parts = np.stack(np.split(angles, 2, axis=1), axis=1)  # (n, 2, pairs)
        heads = x.reshape(len(x), n_head, 2, -1)
        cos, sin = np.cos(parts)[:, None], np.sin(parts)[:, None]
    else:
        heads = x.reshape(len(x), n_head, -1)
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    if kind == "norm":
        a, b = heads[..., 0::2], heads[..., 1::2]
        turned = np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1)
    else:
        a, b = np.split(heads, 2, axis=-1)
        turned = np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
    return turned.reshape(x.shape)

"""turn as plan rows: a row is an item; cosines and sines lie in a table that the plan keeps."""

import numpy as np

from ggq.jit import kernel
from ggq.runtime.backends.numba import elementwise
from ggq.runtime.kernels.rotate import rotate
from ggq.simd import INT, ROWS


@kernel(x=ROWS, out=ROWS, n_head=INT, parts=INT, half=INT, neox=INT, table=INT)
def _turn(args, first, last):
    parts, half = args.parts, args.half
    for item in range(first, last):
        x, to = args.x + item * args.x_stride, args.out + item * args.out_stride
        for number in range(args.n_head * parts):
            cos = args.table + 8 * half * (parts * item + number % parts)
            at = 8 * half * number
            rotate(x + at, to + at, cos, half, args.neox, 2 * half)


def _table(angles, parts):
    """Return float32 (n, parts, cos and sin, pairs), padded so that whole vectors may be read."""
    each = angles.reshape(len(angles), parts, 1, -1)
    flat = np.concatenate([np.cos(each), np.sin(each)], axis=2).ravel()
    return np.concatenate([flat, np.zeros(16)]).astype(np.float32)


def run(backend, x, n_head, angles, kind):
    """Record the rotation; all layers share a table."""
    parts = 2 if kind == "halves" else 1
    key = "turn", parts, angles.shape, angles.tobytes()
    table = backend.once(key, lambda: _table(angles, parts))
    places = {
        "n_head": n_head,
        "parts": parts,
        "half": angles.shape[1] // parts,
        "neox": int(kind != "norm"),
        "table": table.ctypes.data,
    }
    return elementwise.record_one(backend, "turn", _turn, x, **places)

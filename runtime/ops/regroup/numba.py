"""regroup as plan rows: a row of the outcome is an item."""

import numpy as np

from ggq.jit import kernel, njit
from ggq.runtime.backends.numba.plan import Work
from ggq.simd import FLOAT, INT, ROWS, f32x16, float32, int64, load, splat, store, zeros

_HOW = {"join": 0, "interleave": 1, "mean": 2}


@njit
def _copy(source, to, width, every):
    """Copy floats, to places that are ``every`` apart."""
    whole = width - width % 16 if every == 1 else int64(0)
    for i in range(0, whole, 16):
        store(to + 4 * i, load(source + 4 * i, f32x16))
    for i in range(whole, width):
        store(to + 4 * i * every, load(source + 4 * i, float32))


@kernel(x=ROWS, index=INT, k=INT, out=ROWS, width=INT, how=INT, share=FLOAT)
def _regroup(args, first, last):
    k, width, how = args.k, args.width, args.how
    for item in range(first, last):
        index, to = args.index + 8 * k * item, args.out + item * args.out_stride
        if how == 2:
            for i in range(0, width, 16):
                total = zeros(f32x16)
                for j in range(k):
                    row = args.x + load(index + 8 * j, int64) * args.x_stride
                    total = total + load(row + 4 * i, f32x16)
                store(to + 4 * i, total * splat(args.share, f32x16))
        else:
            for j in range(k):
                row = args.x + load(index + 8 * j, int64) * args.x_stride
                if how == 0:
                    _copy(row, to + 4 * j * width, width, int64(1))
                else:
                    _copy(row, to + 4 * j, width, k)


def run(backend, x, index, how):
    """Record the groups; the plan keeps ``index``."""
    index = backend.keep(np.ascontiguousarray(index, np.int64))
    m, k = index.shape
    assert index.min() >= 0 and index.max() < backend.count(x.slot), "rows that there are"
    slot = backend.slot(m)

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value)
        backend.recorder.row(
            "regroup",
            _regroup,
            Work(slot=slot),
            reads=[source],
            writes=[out],
            x=source,
            index=index.ctypes.data,
            k=k,
            out=out,
            width=x.width,
            how=_HOW[how],
            share=1 / k,
        )
        return out

    return backend.value(x.width if how == "mean" else k * x.width, slot, make)

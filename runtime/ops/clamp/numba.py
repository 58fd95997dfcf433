"""clamp as plan rows: a token is an item."""

from ggq.jit import kernel
from ggq.runtime.backends.numba import elementwise
from ggq.simd import FLOAT, INT, ROWS, f32x16, load, splat, store, vmax, vmin


@kernel(x=ROWS, out=ROWS, width=INT, low=FLOAT, high=FLOAT)
def _clamp(args, first, last):
    x, out, high, low = args.x, args.out, splat(args.high, f32x16), splat(args.low, f32x16)
    stride, out_stride, width = args.x_stride, args.out_stride, args.width
    for item in range(first, last):
        for i in range(0, 4 * width, 64):
            value = vmax(vmin(load(x + item * stride + i, f32x16), high), low)
            store(out + item * out_stride + i, value)


def run(backend, x, limit, low=None):
    """Record x between low and limit."""
    low = -limit if low is None else low
    record = elementwise.record_one
    return record(backend, "clamp", _clamp, x, width=x.width, low=low, high=limit)

"""clamp as plan rows."""

from ggq.jit import kernel
from ggq.runtime.backends.numba import elementwise
from ggq.simd import f32x16, load, splat, store, vmax, vmin


@kernel(elementwise.ARGUMENTS)
def _clamp(args, first, last):
    x, out, limit = args.a, args.out, splat(args.constant, f32x16)
    stride, out_stride, width = args.a_stride, args.out_stride, args.width
    for item in range(first, last):
        for i in range(0, 4 * width, 64):
            value = vmax(vmin(load(x + item * stride + i, f32x16), limit), -limit)
            store(out + item * out_stride + i, value)


def run(backend, x, limit):
    """Record x between -limit and limit."""
    return elementwise.record(backend, "clamp", _clamp, [x], limit)

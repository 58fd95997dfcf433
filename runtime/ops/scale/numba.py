"""scale as plan rows."""

from ggq.jit import kernel
from ggq.runtime.backends.numba import elementwise
from ggq.simd import f32x16, load, splat, store


@kernel(elementwise.ARGUMENTS)
def _scale(args, first, last):
    x, out, factor = args.a, args.out, splat(args.constant, f32x16)
    stride, out_stride, width = args.a_stride, args.out_stride, args.width
    for item in range(first, last):
        for i in range(0, 4 * width, 64):
            store(out + item * out_stride + i, load(x + item * stride + i, f32x16) * factor)


def run(backend, x, s):
    """Record x * s."""
    return elementwise.record(backend, "scale", _scale, [x], s)

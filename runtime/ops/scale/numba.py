"""scale as plan rows."""

from numba import float32, int64

from ggq.jit import kernel
from ggq.runtime.backends.numba import elementwise
from ggq.simd import f32x16, load, splat, store


def _builder():
    def scale_kernel(args, first, last):
        x, stride = load(args, int64), load(args + 16, int64)
        out, out_stride, width = (
            load(args + 24, int64),
            load(args + 32, int64),
            load(args + 40, int64),
        )
        factor = splat(load(args + 48, float32), f32x16)
        for item in range(first, last):
            for i in range(0, 4 * width, 64):
                store(out + item * out_stride + i, load(x + item * stride + i, f32x16) * factor)

    return kernel(scale_kernel)


def run(backend, x, s):
    """Record x * s."""
    return elementwise.record(backend, "scale", _builder, [x], s)

"""softcap as plan rows."""

from numba import float32, int64

from ggq.jit import kernel
from ggq.runtime.backends.numba import elementwise
from ggq.simd import f32x16, load, splat, store
from ggq.simd.math import tanh


def _builder():
    def softcap_kernel(args, first, last):
        x, stride = load(args, int64), load(args + 16, int64)
        out, out_stride, width = (
            load(args + 24, int64),
            load(args + 32, int64),
            load(args + 40, int64),
        )
        cap = splat(load(args + 48, float32), f32x16)
        for item in range(first, last):
            for i in range(0, 4 * width, 64):
                value = cap * tanh(load(x + item * stride + i, f32x16) / cap)
                store(out + item * out_stride + i, value)

    return kernel(softcap_kernel)


def run(backend, x, cap):
    """Record cap * tanh(x / cap)."""
    return elementwise.record(backend, "softcap", _builder, [x], cap)

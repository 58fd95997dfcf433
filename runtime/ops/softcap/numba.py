"""softcap as plan rows."""

from ggq.jit import kernel
from ggq.runtime.backends.numba import elementwise
from ggq.simd import f32x16, load, splat, store
from ggq.simd.math import tanh


@kernel(elementwise.ARGUMENTS)
def _softcap(args, first, last):
    x, out, cap = args.a, args.out, splat(args.constant, f32x16)
    stride, out_stride, width = args.a_stride, args.out_stride, args.width
    for item in range(first, last):
        for i in range(0, 4 * width, 64):
            value = cap * tanh(load(x + item * stride + i, f32x16) / cap)
            store(out + item * out_stride + i, value)


def run(backend, x, cap):
    """Record cap * tanh(x / cap)."""
    return elementwise.record(backend, "softcap", _softcap, [x], cap)

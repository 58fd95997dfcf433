"""add as plan rows; where the right side is a linear's output, that kernel adds on its way out."""

from numba import int64

from ggq.jit import kernel
from ggq.runtime.backends.numba import elementwise
from ggq.simd import f32x16, load, store


def _builder():
    def add_kernel(args, first, last):
        a, b, stride = load(args, int64), load(args + 8, int64), load(args + 16, int64)
        out, out_stride, width = (
            load(args + 24, int64),
            load(args + 32, int64),
            load(args + 40, int64),
        )
        for item in range(first, last):
            at = item * stride
            for i in range(0, 4 * width, 64):
                total = load(a + at + i, f32x16) + load(b + at + i, f32x16)
                store(out + item * out_stride + i, total)

    return kernel(add_kernel)


def run(backend, a, b):
    """Record a + b."""
    if b.adds_residual:
        total = b.f32(a.f32())  # at once: values that wait for each other would nest by layers
        return backend.value(a.width, a.slot, lambda value, form, residual: total)
    return elementwise.record(backend, "add", _builder, [a, b])

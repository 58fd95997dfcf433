"""shift as plan rows: a token is an item."""

from numba import int64

from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import Work
from ggq.runtime.backends.numba.values import compiled
from ggq.simd import f32x16, load, store


def _builder():
    def shift_kernel(args, first, last):
        x, stride, row = load(args, int64), load(args + 8, int64), load(args + 16, int64)
        out, out_stride, width = (
            load(args + 24, int64),
            load(args + 32, int64),
            load(args + 40, int64),
        )
        for item in range(first, last):
            for i in range(0, 4 * width, 64):
                total = load(x + item * stride + i, f32x16) + load(row + i, f32x16)
                store(out + item * out_stride + i, total)

    return kernel(shift_kernel)


def run(backend, x, name):
    """Record the sum with the tensor's first row."""
    row = backend.weight(name).vector

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value)
        args = [source, source.stride, row, out, out.stride, x.width]
        backend.recorder.row(
            "shift", compiled(_builder), args, Work(slot=x.slot), reads=[source], writes=[out]
        )
        return out

    return backend.value(x.width, x.slot, make)

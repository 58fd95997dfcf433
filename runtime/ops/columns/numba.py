"""columns as plan rows: a token is an item, 16 columns are copied at a time."""

from numba import int64

from ggq.errors import ModelError
from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import Work
from ggq.runtime.backends.numba.values import compiled
from ggq.simd import f32x16, load, store


def _builder():
    def columns_kernel(args, first, last):
        x, stride = load(args, int64), load(args + 8, int64)
        out, out_stride = load(args + 16, int64), load(args + 24, int64)
        start, width = load(args + 32, int64), load(args + 40, int64)
        group, groups = load(args + 48, int64), load(args + 56, int64)
        for item in range(first, last):
            for g in range(groups):
                source = x + item * stride + 4 * (g * group + start)
                to = out + item * out_stride + 4 * g * width
                for i in range(0, 4 * width, 64):
                    store(to + i, load(source + i, f32x16))

    return kernel(columns_kernel)


def run(backend, x, first, width, group=None):
    """Record the copy of those columns."""
    group = group or x.width
    groups = x.width // group
    if width % 16 and groups > 1:
        raise ModelError(f"heads of {width} columns are not supported on the CPU")

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value)
        args = [source, source.stride, out, out.stride, first, width, group, groups]
        work = Work(slot=x.slot)
        backend.recorder.row(
            "columns", compiled(_builder), args, work, reads=[source], writes=[out]
        )
        return out

    return backend.value(groups * width, x.slot, make)

"""join as plan rows: a token is an item, 16 columns are copied at a time."""

from numba import int64

from ggq.errors import ModelError
from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import Work
from ggq.runtime.backends.numba.values import compiled
from ggq.simd import f32x16, load, store


def _builder():
    def join_kernel(args, first, last):
        a, a_stride, a_width = load(args, int64), load(args + 8, int64), load(args + 16, int64)
        b, b_stride, b_width = (
            load(args + 24, int64),
            load(args + 32, int64),
            load(args + 40, int64),
        )
        out, out_stride, n_head = (
            load(args + 48, int64),
            load(args + 56, int64),
            load(args + 64, int64),
        )
        for item in range(first, last):
            to = out + item * out_stride
            for head in range(n_head):
                for i in range(0, 4 * a_width, 64):
                    at = a + item * a_stride + 4 * head * a_width + i
                    store(to + i, load(at, f32x16))
                to += 4 * a_width
                for i in range(0, 4 * b_width, 64):
                    at = b + item * b_stride + 4 * head * b_width + i
                    store(to + i, load(at, f32x16))
                to += 4 * b_width

    return kernel(join_kernel)


def run(backend, a, b, n_head):
    """Record the copy of both."""
    widths = [x.width // n_head for x in (a, b)]
    if any(w % 16 for w in widths):
        raise ModelError(f"heads of {widths[0]} + {widths[1]} columns are not supported on the CPU")

    def make(value, form, residual):
        first, second, out = a.f32(), b.f32(), backend.new(value)
        args = [first, first.stride, widths[0], second, second.stride, widths[1]]
        args += [out, out.stride, n_head]
        backend.recorder.row(
            "join", compiled(_builder), args, Work(slot=a.slot), reads=[first, second], writes=[out]
        )
        return out

    return backend.value(a.width + b.width, a.slot, make)

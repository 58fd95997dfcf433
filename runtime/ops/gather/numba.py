"""gather as plan rows: the step's inputs name the tokens whose logits are asked for."""

from numba import int64

from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import OUTPUTS, Work
from ggq.runtime.backends.numba.values import compiled
from ggq.simd import f32x16, load, store


def _builder():
    def gather_kernel(args, first, last):
        x, stride, ids = load(args, int64), load(args + 8, int64), load(args + 16, int64)
        out, out_stride, width = (
            load(args + 24, int64),
            load(args + 32, int64),
            load(args + 40, int64),
        )
        for item in range(first, last):
            at = x + load(ids + 8 * item, int64) * stride
            for i in range(0, 4 * width, 64):
                store(out + item * out_stride + i, load(at + i, f32x16))

    return kernel(gather_kernel)


def run(backend, x):
    """Record the copy of the rows asked for."""

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value)
        args = [source, source.stride, backend.inputs.outputs, out, out.stride, x.width]
        backend.recorder.row(
            "gather", compiled(_builder), args, Work(slot=OUTPUTS), reads=[source], writes=[out]
        )
        return out

    return backend.value(x.width, OUTPUTS, make)

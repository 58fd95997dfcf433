"""gather as plan rows: the step's inputs name the tokens whose logits are asked for."""

from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import OUTPUTS, Work
from ggq.simd import INT, ROWS, f32x16, int64, load, store


@kernel(x=ROWS, ids=INT, out=ROWS, width=INT)
def _gather(args, first, last):
    x, stride, ids = args.x, args.x_stride, args.ids
    out, out_stride, width = args.out, args.out_stride, args.width
    for item in range(first, last):
        at = x + load(ids + 8 * item, int64) * stride
        for i in range(0, 4 * width, 64):
            store(out + item * out_stride + i, load(at + i, f32x16))


def run(backend, x):
    """Record the copy of the rows asked for."""

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value)
        backend.recorder.row(
            "gather",
            _gather,
            Work(slot=OUTPUTS),
            reads=[source],
            writes=[out],
            x=source,
            ids=backend.inputs.outputs,
            out=out,
            width=x.width,
        )
        return out

    return backend.value(x.width, OUTPUTS, make)

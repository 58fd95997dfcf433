"""gain as plan rows: a token is an item."""

from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import Work
from ggq.simd import INT, ROWS, f32x16, load, store


@kernel(x=ROWS, row=INT, out=ROWS, width=INT)
def _gain(args, first, last):
    x, stride, row = args.x, args.x_stride, args.row
    out, out_stride, width = args.out, args.out_stride, args.width
    for item in range(first, last):
        for i in range(0, 4 * width, 64):
            product = load(x + item * stride + i, f32x16) * load(row + i, f32x16)
            store(out + item * out_stride + i, product)


def run(backend, x, name):
    """Record the product with the tensor's first row."""
    row = backend.weight(name).vector

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value)
        backend.recorder.row(
            "gain",
            _gain,
            Work(slot=x.slot),
            reads=[source],
            writes=[out],
            x=source,
            row=row,
            out=out,
            width=x.width,
        )
        return out

    return backend.value(x.width, x.slot, make)

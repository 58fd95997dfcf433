"""see as plan rows that write into x: an item is a picture's token, there are none in text."""

from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import SEEN, Work
from ggq.simd import INT, ROWS, f32x16, int64, load, store


@kernel(out=ROWS, width=INT, tokens=INT, rows=ROWS, offset=INT, adds=INT)
def _see(args, first, last):
    out, stride, rows, rows_stride = args.out, args.out_stride, args.rows, args.rows_stride
    for item in range(first, last):
        to = out + load(args.tokens + 8 * item, int64) * stride
        source = rows + item * rows_stride + args.offset
        for i in range(0, 4 * args.width, 64):
            row = load(source + i, f32x16)
            store(to + i, row + load(to + i, f32x16) if args.adds else row)


def run(backend, x, part):
    """Record what pictures' tokens get; nothing where the model is given no pictures."""
    pictures = backend.inputs.pictures
    if pictures is None or part >= pictures.n_parts:
        return x

    def make(value, form, residual):
        out = x.f32()
        backend.recorder.row(
            "see",
            _see,
            Work(slot=SEEN),
            reads=[out],
            writes=[out],
            out=out,
            width=x.width,
            tokens=pictures.tokens,
            rows=pictures.place,
            offset=pictures.offset(part),
            adds=int(part > 0),
        )
        return out

    return backend.value(x.width, x.slot, make)

"""above as plan rows: a row of the outcome is an item."""

from ggq.jit import kernel
from ggq.runtime.backends.numba.pictures import padded_rows
from ggq.runtime.backends.numba.plan import Work
from ggq.simd import INT, ROWS, f32x16, load, store


@kernel(rows=ROWS, n=INT, x=ROWS, out=ROWS, width=INT)
def _above(args, first, last):
    n = args.n
    for item in range(first, last):
        source = args.x + (item - n) * args.x_stride
        if item < n:
            source = args.rows + item * args.rows_stride
        to = args.out + item * args.out_stride
        for i in range(0, 4 * args.width, 64):
            store(to + i, load(source + i, f32x16))


def run(backend, rows, x):
    """Record the copy of both."""
    held, slot = backend.held(padded_rows(rows)), backend.slot(backend.count(x.slot) + len(rows))

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value)
        backend.recorder.row(
            "above",
            _above,
            Work(slot=slot),
            reads=[source],
            writes=[out],
            rows=held.f32(),
            n=len(rows),
            x=source,
            out=out,
            width=x.width,
        )
        return out

    return backend.value(x.width, slot, make)

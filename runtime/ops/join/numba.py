"""join as plan rows: a token is an item, 16 columns are copied at a time."""

from ggq.errors import ModelError
from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import Work
from ggq.simd import INT, ROWS, f32x16, load, store


@kernel(a=ROWS, a_width=INT, b=ROWS, b_width=INT, b_step=INT, out=ROWS, n_head=INT)
def _join(args, first, last):
    a, a_stride, a_width = args.a, args.a_stride, args.a_width
    b, b_stride, b_width = args.b, args.b_stride, args.b_width
    out, out_stride, n_head = args.out, args.out_stride, args.n_head
    for item in range(first, last):
        to = out + item * out_stride
        for head in range(n_head):
            for i in range(0, 4 * a_width, 64):
                at = a + item * a_stride + 4 * head * a_width + i
                store(to + i, load(at, f32x16))
            to += 4 * a_width
            for i in range(0, 4 * b_width, 64):
                at = b + item * b_stride + 4 * head * args.b_step + i
                store(to + i, load(at, f32x16))
            to += 4 * b_width


def run(backend, a, b, n_head, shared=False):
    """Record the copy of both."""
    widths = [a.width // n_head, b.width if shared else b.width // n_head]
    if any(w % 16 for w in widths):
        raise ModelError(f"heads of {widths[0]} + {widths[1]} columns are not supported on the CPU")

    def make(value, form, residual):
        first, second, out = a.f32(), b.f32(), backend.new(value)
        backend.recorder.row(
            "join",
            _join,
            Work(slot=a.slot),
            reads=[first, second],
            writes=[out],
            a=first,
            a_width=widths[0],
            b=second,
            b_width=widths[1],
            b_step=0 if shared else widths[1],
            out=out,
            n_head=n_head,
        )
        return out

    return backend.value(n_head * sum(widths), a.slot, make)

"""rope as plan rows: a token is an item; cosines and sines come from the step's inputs."""

from ggq.errors import ModelError
from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import Work
from ggq.runtime.backends.numba.values import Rotation
from ggq.runtime.kernels.rotate import rotate
from ggq.simd import INT, ROWS


@kernel(x=ROWS, out=ROWS, n_head=INT, width=INT, half=INT, neox=INT, table=INT)
def _rope(args, first, last):
    n_head, width, half, neox = args.n_head, args.width, args.half, args.neox
    for item in range(first, last):
        cos = args.table + 8 * half * item
        for head in range(n_head):
            at = 4 * width * head
            x, to = args.x + item * args.x_stride + at, args.out + item * args.out_stride + at
            rotate(x, to, cos, half, neox, width)


def run(backend, x, n_head, rope):
    """Record the rotation of each head's first ``rope.dims`` columns."""
    if rope.kind not in ("norm", "neox"):
        raise ModelError(f"rotary embedding of kind {rope.kind} is not supported on the CPU")
    table = backend.inputs.rope_table(rope, backend)
    half, neox = rope.dims // 2, int(rope.kind == "neox")

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value)
        backend.recorder.row(
            "rope",
            _rope,
            Work(slot=x.slot),
            reads=[source],
            writes=[out],
            x=source,
            out=out,
            n_head=n_head,
            width=x.width // n_head,
            half=half,
            neox=neox,
            table=table,
        )
        return out

    return backend.value(x.width, x.slot, make, rotation=Rotation(x, table, half, neox))

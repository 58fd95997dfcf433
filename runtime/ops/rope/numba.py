"""rope as plan rows: a token is an item; cosines and sines come from the step's inputs."""

from numba import int64

from ggq.errors import ModelError
from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import Work
from ggq.runtime.backends.numba.values import Rotation, compiled
from ggq.runtime.kernels.rotate import rotate
from ggq.simd import load


def _builder():
    def rope_kernel(args, first, last):
        source, source_stride = load(args, int64), load(args + 8, int64)
        out, out_stride = load(args + 16, int64), load(args + 24, int64)
        n_head, width, half = load(args + 32, int64), load(args + 40, int64), load(args + 48, int64)
        neox, table = load(args + 56, int64), load(args + 64, int64)
        for item in range(first, last):
            cos = table + 8 * half * item
            for head in range(n_head):
                at = 4 * width * head
                x, to = source + item * source_stride + at, out + item * out_stride + at
                rotate(x, to, cos, half, neox, width)

    return kernel(rope_kernel)


def run(backend, x, n_head, rope):
    """Record the rotation of each head's first ``rope.dims`` columns."""
    if rope.kind not in ("norm", "neox"):
        raise ModelError(f"rotary embedding of kind {rope.kind} is not supported on the CPU")
    table = backend.inputs.rope_table(rope, backend)

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value)
        args = [source, source.stride, out, out.stride, n_head, x.width // n_head]
        args += [rope.dims // 2, int(rope.kind == "neox"), table]
        backend.recorder.row(
            "rope", compiled(_builder), args, Work(slot=x.slot), reads=[source], writes=[out]
        )
        return out

    value = backend.value(x.width, x.slot, make)
    value.rotation = Rotation(x, table, rope.dims // 2, int(rope.kind == "neox"))
    return value

"""rope as plan rows: a token is an item; cosines and sines come from the step's inputs."""

from numba import float32, int64

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.runtime.backends.numba import compiled
from ggq.runtime.plan import Work
from ggq.simd import f32x16, load, shuffle, store

_first = shuffle([2 * i for i in range(16)])
_second = shuffle([2 * i + 1 for i in range(16)])
_pair_low = shuffle([i // 2 if i % 2 == 0 else 16 + i // 2 for i in range(16)])
_pair_high = shuffle([8 + i // 2 if i % 2 == 0 else 24 + i // 2 for i in range(16)])


@njit
def _turn(x, out, a, b, cos, sin):
    """Rotate the pair of columns (a, b)."""
    c, s = load(cos, float32), load(sin, float32)
    first, second = load(x + 4 * a, float32), load(x + 4 * b, float32)
    store(out + 4 * a, first * c - second * s)
    store(out + 4 * b, first * s + second * c)


@njit
def _neighbours(x, out, cos, sin, half):
    """Pairs (2i, 2i + 1)."""
    i = 0
    while i + 16 <= half:
        low, high = load(x + 8 * i, f32x16), load(x + 8 * i + 64, f32x16)
        a, b = _first(low, high), _second(low, high)
        c, s = load(cos + 4 * i, f32x16), load(sin + 4 * i, f32x16)
        a, b = a * c - b * s, a * s + b * c
        store(out + 8 * i, _pair_low(a, b))
        store(out + 8 * i + 64, _pair_high(a, b))
        i += 16
    while i < half:
        _turn(x, out, 2 * i, 2 * i + 1, cos + 4 * i, sin + 4 * i)
        i += 1


@njit
def _halves(x, out, cos, sin, half):
    """Pairs (i, i + half)."""
    i = 0
    while i + 16 <= half:
        a, b = load(x + 4 * i, f32x16), load(x + 4 * (i + half), f32x16)
        c, s = load(cos + 4 * i, f32x16), load(sin + 4 * i, f32x16)
        store(out + 4 * i, a * c - b * s)
        store(out + 4 * (i + half), a * s + b * c)
        i += 16
    while i < half:
        _turn(x, out, i, i + half, cos + 4 * i, sin + 4 * i)
        i += 1


def _builder():
    def rope_kernel(args, first, last):
        source, source_stride = load(args, int64), load(args + 8, int64)
        out, out_stride = load(args + 16, int64), load(args + 24, int64)
        n_head, width, half = load(args + 32, int64), load(args + 40, int64), load(args + 48, int64)
        neox, table = load(args + 56, int64), load(args + 64, int64)
        for item in range(first, last):
            cos = table + 8 * half * item
            sin = cos + 4 * half
            for head in range(n_head):
                at = 4 * width * head
                x, to = source + item * source_stride + at, out + item * out_stride + at
                if neox:
                    _halves(x, to, cos, sin, half)
                else:
                    _neighbours(x, to, cos, sin, half)
                for i in range(2 * half, width):
                    store(to + 4 * i, load(x + 4 * i, float32))

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

    return backend.value(x.width, x.slot, make)

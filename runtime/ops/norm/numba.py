"""norm as plan rows: a token is an item; written as floats or quantized at once."""

from ggq.errors import ModelError
from ggq.jit import kernel, njit
from ggq.quants.kernels.abi import SUPER
from ggq.runtime.backends.numba.plan import Work
from ggq.runtime.kernels.rows import load_valid, quantize_super
from ggq.simd import (
    FLOAT,
    INT,
    ROWS,
    Struct,
    f32x16,
    float32,
    fma,
    int64,
    load,
    reduce_add,
    splat,
    sqrt,
    stack,
    store,
    zeros,
)

_KINDS = {"rms": 0, "layer": 1}
_PART = 4 * SUPER  # bytes of the floats that are quantized together


@njit
def _root(value):
    from_lane = sqrt(splat(value, f32x16))
    return reduce_add(from_lane) / float32(16)


@njit
def _statistics(x, width, kind, eps):
    """Return the mean (0 for rms) and 1 / sqrt(mean square + eps)."""
    mean = float32(0)
    if kind == 1:
        total = zeros(f32x16)
        for i in range(0, width, 16):
            total = total + load_valid(x + 4 * i, width - i)
        mean = reduce_add(total) / float32(width)
    squares, center = zeros(f32x16), splat(mean, f32x16)
    for i in range(0, width, 16):
        v = load_valid(x + 4 * i, width - i)
        if kind == 1:
            v = v - center
        squares = fma(v, v, squares)
    surplus = float32(-width % 16) * mean * mean if kind == 1 else float32(0)
    return mean, float32(1) / _root((reduce_add(squares) - surplus) / float32(width) + eps)


@njit
def _normalize(x, out, gain, width, kind, eps):
    mean, factor = _statistics(x, width, kind, eps)
    center, scale = splat(mean, f32x16), splat(factor, f32x16)
    for start in range(0, width, 16):
        i = min(start, max(width - 16, int64(0)))  # what follows is another group's
        v = load(x + 4 * i, f32x16)
        if kind == 1:
            v = v - center
        v = v * scale
        if gain:
            v = v * load(gain + 4 * i, f32x16)
        store(out + 4 * i, v)


_ARGUMENTS = Struct(
    "norm", x=ROWS, out=ROWS, eps=FLOAT, gain=INT, width=INT, kind=INT, groups=INT, step=INT
)


@kernel(_ARGUMENTS)
def _norm(args, first, last):
    gain, width, kind, eps = args.gain, args.width, args.kind, args.eps
    for item in range(first, last):
        x, to = args.x + item * args.x_stride, args.out + item * args.out_stride
        for group in range(args.groups):
            at = 4 * group * width
            own = gain + group * args.step  # a gain for each group, or one for all
            _normalize(x + at, to + at, own, width, kind, eps)


@kernel(_ARGUMENTS)
def _norm_quantized(args, first, last):
    gain, width, kind = args.gain, args.width, args.kind
    blocks = -(-width // SUPER)
    part = stack(_PART)
    for item in range(first, last):
        x, to = args.x + item * args.x_stride, args.out + item * args.out_stride
        mean, factor = _statistics(x, width, kind, args.eps)
        center, scale = splat(mean, f32x16), splat(factor, f32x16)
        for block in range(blocks):
            start = SUPER * block
            valid = min(SUPER, width - start)
            for i in range(0, valid, 16):
                v = load(x + 4 * (start + i), f32x16)
                if kind == 1:
                    v = v - center
                v = v * scale
                if gain:
                    v = v * load(gain + 4 * (start + i), f32x16)
                store(part + 4 * i, v)
            quantize_super(part - 4 * start, to, SUPER * blocks, width, block)


def run(backend, x, name, eps, kind="rms", width=None):
    """Record the norm over groups of ``width`` columns."""
    group = width or x.width
    groups = x.width // group
    if groups > 1 and group < 16:
        raise ModelError(f"norm {name}: heads of {group} columns are not supported on the CPU")
    gain = backend.weight(name).vector if name else 0
    several = bool(name) and len(backend.weight(name).shape) > 1

    def make(value, form, residual):
        source, out = x.f32(), backend.new(value, form)
        backend.recorder.row(
            "norm",
            _norm_quantized if form == "q8" else _norm,
            Work(slot=x.slot),
            reads=[source],
            writes=[out],
            x=source,
            out=out,
            eps=eps,
            gain=gain,
            width=group,
            kind=_KINDS[kind],
            groups=groups,
            step=4 * group if several else 0,
        )
        return out

    return backend.value(x.width, x.slot, make, quantizes=groups == 1)

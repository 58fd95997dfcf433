"""Vector helpers of the operations' kernels: masked ends of rows, quantizing 256 columns."""

from ggq.jit import njit
from ggq.quants.kernels.abi import SUPER
from ggq.simd import (
    convert,
    f32x16,
    fabs,
    float32,
    i8x16,
    i32x16,
    int64,
    load,
    reduce_add,
    reduce_max,
    rint,
    select,
    splat,
    store,
    vector_constant,
    vmax,
    zeros,
)

_iota = vector_constant(i32x16, range(16))


@njit
def load_valid(address, left):
    """Load 16 floats of a padded row; lanes from ``left`` on are zero."""
    value = load(address, f32x16)
    if left >= 16:
        return value
    return select(_iota() < splat(left, i32x16), value, zeros(f32x16))


@njit
def quantize_32(a, b, out, n, block):
    """Write 32 columns of a token's quantized activations (quants/kernels/abi.py).

    Scales are absmax / 127 as in ggml's Q8_0, kept in float32.
    """
    top = reduce_max(vmax(fabs(a), fabs(b)))
    inverse = float32(127) / top if top > 0 else float32(0)
    scale = top / float32(127)
    step = splat(inverse, f32x16)
    x, y = convert(rint(a * step), i32x16), convert(rint(b * step), i32x16)
    codes = out + 32 * block
    store(codes, convert(x, i8x16))
    store(codes + 16, convert(y, i8x16))
    store(out + n + 4 * block, scale)
    store(out + n + n // 8 + 8 * block, reduce_add(x))
    store(out + n + n // 8 + 8 * block + 4, reduce_add(y))


@njit
def quantize_super(x, out, n, width, index):
    """Quantize 256 columns of a float32 row of ``width``; ``n``: width padded to 256."""
    for i in range(SUPER // 32):
        column = index * SUPER + 32 * i
        a = load_valid(x + 4 * column, int64(width - column))
        b = load_valid(x + 4 * column + 64, int64(width - column - 16))
        quantize_32(a, b, out, n, column // 32)

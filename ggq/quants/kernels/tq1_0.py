"""TQ1_0 in SIMD: a byte is a fraction in base 3; times 3, the next digit is on top."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.simd import (
    bitcast,
    f32x8,
    join,
    load,
    load_half,
    select,
    splat,
    u8x16,
    u8x32,
    u8x64,
    u32x4,
    uint32,
    vector_constant,
    zeros,
)

STRIDE = 54
_LONG, _SHORT, _LAST, _D = 0, 32, 48, 52
_powers_of_last = vector_constant(u8x16, [3 ** (i // 4) for i in range(16)])


@njit
def _triple(fractions):
    """Move the next digit above the point; what stood there is lost in the wrap."""
    return fractions + fractions + fractions


@njit
def _digits(fractions):
    """Return floor(3 x fraction / 256)."""
    one, none = splat(1, u8x64), zeros(u8x64)
    above = select(fractions > splat(85, u8x64), one, none)
    return above + select(fractions > splat(170, u8x64), one, none)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    long = load(block + _LONG, u8x32)
    first = join(long, _triple(long))
    second = _triple(_triple(first))
    fifth = _triple(_triple(_triple(_triple(long))))
    short = load(block + _SHORT, u8x16)
    s1 = _triple(short)
    s2 = _triple(s1)
    s3 = _triple(s2)
    last = bitcast(splat(load(block + _LAST, uint32), u32x4), u8x16) * _powers_of_last()
    third = join(fifth, join(short, s1))
    fourth = join(join(s2, s3), join(_triple(s3), last))
    scales = splat(load_half(block + _D), f32x8)  # codes 0..2 stand for -1..1
    c0, c1, c2, c3 = _digits(first), _digits(second), _digits(third), _digits(fourth)
    return c0, c1, c2, c3, scales, scales


KERNELS = matmul(unpack, 2, STRIDE, f32x8, centre=1)

"""IQ1_S in SIMD: codes of 11 bits; the entries hold 8 x (value + 1), so that a shift is 1."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.lattice import eighths, wide_codes
from ggq.simd import (
    bitcast,
    constant_table,
    convert,
    f32x8,
    float32,
    gather,
    i64x8,
    load,
    load_half,
    shuffle,
    splat,
    stack,
    store,
    u8x32,
    u8x64,
    u16x8,
    u16x32,
    u32x8,
    uint16,
    vector_constant,
)

STRIDE = 50
_QUANTS, _HIGH = 2, 34
table = constant_table(eighths())
_four_times = shuffle([i // 4 for i in range(32)])
_threes = vector_constant(u16x32, [0, 3, 6, 9] * 8)


@njit
def _quarter(codes):
    return bitcast(gather(table(), codes, uint16, i64x8), u8x64)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    high, codes = load(block + _HIGH, u16x8), stack(64)
    upper = convert((_four_times(high, high) >> _threes()) & splat(7, u16x32), u8x32)
    store(codes, wide_codes(load(block + _QUANTS, u8x32), upper))
    words = convert(high, u32x8)
    number = convert((words >> splat(12, u32x8)) & splat(7, u32x8), f32x8)
    number = number + number + splat(1.0, f32x8)
    scales = splat(load_half(block) * float32(0.125), f32x8) * number
    negative = words >> splat(15, u32x8)
    mins = scales * convert(negative + negative + splat(7, u32x8), f32x8)
    c0, c1, c2, c3 = (
        _quarter(codes),
        _quarter(codes + 16),
        _quarter(codes + 32),
        _quarter(codes + 48),
    )
    return c0, c1, c2, c3, scales, mins


KERNELS = matmul(unpack, 16, STRIDE, f32x8)

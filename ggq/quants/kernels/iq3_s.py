"""IQ3_S in SIMD: codes of 9 bits name 4 magnitudes, the ninth bits apart; signs stored."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.lattice import LARGEST, magnitudes, signed, wide_codes
from ggq.simd import (
    bitcast,
    constant_table,
    convert,
    f32x8,
    gather,
    high_half,
    load,
    load_half,
    low_half,
    mask64,
    select,
    splat,
    stack,
    store,
    u8x64,
    u32x8,
    u32x16,
    uint16,
    uint32,
    uint64,
    vector_constant,
    zeros,
)

STRIDE = 110
_QUANTS, _HIGH, _SIGNS, _SCALES = 2, 66, 74, 106
_largest = LARGEST["IQ3_S"]
_table = constant_table(magnitudes("IQ3_S"))
_nibble = vector_constant(u32x8, range(0, 32, 4))


@njit
def _quarter(codes, signs):
    vectors = bitcast(gather(_table(), codes, uint16, u32x16), u8x64)
    return signed(vectors, load(signs, uint64), _largest)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    low = load(block + _QUANTS, u8x64)
    high = select(mask64(load(block + _HIGH, uint64)), splat(1, u8x64), zeros(u8x64))
    codes, signs = stack(128), block + _SIGNS
    store(codes, wide_codes(low_half(low), low_half(high)))
    store(codes + 64, wide_codes(high_half(low), high_half(high)))
    number = (splat(load(block + _SCALES, uint32), u32x8) >> _nibble()) & splat(15, u32x8)
    number = convert(number + number + splat(1, u32x8), f32x8)
    scales = splat(load_half(block), f32x8) * number
    c0, c1 = _quarter(codes, signs), _quarter(codes + 32, signs + 8)
    c2, c3 = _quarter(codes + 64, signs + 16), _quarter(codes + 96, signs + 24)
    return c0, c1, c2, c3, scales, scales * splat(_largest, f32x8)


KERNELS = matmul(unpack, 2 * _largest, STRIDE, f32x8, centre=_largest)

"""IQ2_S in SIMD: codes of 10 bits, the upper two apart; all eight signs stored."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.lattice import (
    LARGEST,
    magnitudes,
    nibble_scales,
    signed,
    two_bit_neighbours,
    wide_codes,
)
from ggq.simd import (
    bitcast,
    constant_table,
    f32x16,
    float32,
    gather,
    i64x8,
    load,
    load_half,
    low_half,
    splat,
    stack,
    store,
    u8x16,
    u8x32,
    u8x64,
    uint16,
    uint64,
)

STRIDE = 82
_QUANTS, _SIGNS, _HIGH, _SCALES = 2, 34, 66, 74
_largest = LARGEST["IQ2_S"]
_table = constant_table(magnitudes("IQ2_S"))


@njit
def _quarter(codes, signs):
    vectors = bitcast(gather(_table(), codes, uint16, i64x8), u8x64)
    return signed(vectors, load(signs, uint64), _largest)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    codes, signs = stack(64), block + _SIGNS
    high = low_half(two_bit_neighbours(load(block + _HIGH, u8x16)))  # the scales are not used
    store(codes, wide_codes(load(block + _QUANTS, u8x32), high))
    number = nibble_scales(block + _SCALES) + splat(0.5, f32x16)
    scales = splat(load_half(block) * float32(0.25), f32x16) * number
    c0, c1 = _quarter(codes, signs), _quarter(codes + 16, signs + 8)
    c2, c3 = _quarter(codes + 32, signs + 16), _quarter(codes + 48, signs + 24)
    return c0, c1, c2, c3, scales, scales * splat(_largest, f32x16)


KERNELS = matmul(unpack, 2 * _largest, STRIDE, f32x16, centre=_largest)

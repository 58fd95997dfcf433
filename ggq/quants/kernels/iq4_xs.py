"""IQ4_XS in SIMD: IQ4_NL's curve; six-bit scales, their upper two bits apart."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import nibbles_of_two
from ggq.quants.kernels.iq4_nl import OFFSET, curve
from ggq.simd import (
    convert,
    f32x8,
    load,
    load_half,
    lookup16,
    splat,
    u32x8,
    uint16,
    uint32,
    vector_constant,
)

STRIDE = 136
_HIGH, _LOW, _QUANTS = 2, 4, 8
_low_shift = vector_constant(u32x8, range(0, 32, 4))
_high_shift = vector_constant(u32x8, range(0, 16, 2))


@njit
def _quarter(codes):
    return lookup16(curve(), nibbles_of_two(codes, codes + 16))


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    low = (splat(load(block + _LOW, uint32), u32x8) >> _low_shift()) & splat(15, u32x8)
    high = (splat(load(block + _HIGH, uint16), u32x8) >> _high_shift()) & splat(3, u32x8)
    number = convert(low | (high << splat(4, u32x8)), f32x8) - splat(32.0, f32x8)
    scales = splat(load_half(block), f32x8) * number
    codes = block + _QUANTS
    c0, c1 = _quarter(codes), _quarter(codes + 32)
    c2, c3 = _quarter(codes + 64), _quarter(codes + 96)
    return c0, c1, c2, c3, scales, scales * splat(OFFSET, f32x8)


KERNELS = matmul(unpack, 255, STRIDE, f32x8, centre=OFFSET)

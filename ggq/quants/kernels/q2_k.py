"""Q2_K in SIMD: 16 bytes of 4-bit scales and minimums, then 2-bit codes."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import last_two_halves
from ggq.quants.kernels.turned import turn_lanes, turned_two_bits
from ggq.quants.kernels.two_bits import two_bit_codes
from ggq.simd import convert, f32x16, load, splat, u8x16

STRIDE = 84
_SCALES, _QUANTS = 0, 16  # d and dmin end the block


@njit
def _scales(block, packed):
    d, dmin = last_two_halves(block + STRIDE)
    scales = convert(packed & splat(15, u8x16), f32x16) * d
    return scales, convert(packed >> splat(4, u8x16), f32x16) * dmin


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    scales, mins = _scales(block, load(block + _SCALES, u8x16))
    c0, c1, c2, c3 = two_bit_codes(block + _QUANTS)
    return c0, c1, c2, c3, scales, mins


@njit
def turned(block):
    """Return the same turned."""
    scales, mins = _scales(block, turn_lanes(load(block + _SCALES, u8x16)))
    c0, c1, c2, c3 = turned_two_bits(block + _QUANTS)
    return c0, c1, c2, c3, scales, mins


KERNELS = matmul(unpack, 3, STRIDE, f32x16, turned=turned)

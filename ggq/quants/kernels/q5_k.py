"""Q5_K in SIMD: Q4_K's nibbles, the fifth bits of 64 columns in two bit planes of 32 bytes."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import halves, masked, six_bit_pairs, twice32
from ggq.simd import f32x8

STRIDE = 176
_HIGH, _QUANTS = 16, 48
_nibble = halves(0, 4)
# Plane 2j belongs to the low nibbles of chunk j, plane 2j + 1 to the high ones; both go to bit 4.
_left_4_3 = halves(4, 3)
_left_2_1 = halves(2, 1)
_right_0_1 = halves(0, 1)
_right_2_3 = halves(2, 3)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    scales, mins = six_bit_pairs(block)
    codes, planes = block + _QUANTS, twice32(block + _HIGH)
    c0 = masked(twice32(codes) >> _nibble(), 15) | masked(planes << _left_4_3(), 16)
    c1 = masked(twice32(codes + 32) >> _nibble(), 15) | masked(planes << _left_2_1(), 16)
    c2 = masked(twice32(codes + 64) >> _nibble(), 15) | masked(planes >> _right_0_1(), 16)
    c3 = masked(twice32(codes + 96) >> _nibble(), 15) | masked(planes >> _right_2_3(), 16)
    return c0, c1, c2, c3, scales, mins


KERNELS = matmul(unpack, 31, STRIDE, f32x8)

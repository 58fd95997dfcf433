"""Q5_1 in SIMD: Q4_1 with the fifth bits of a block in one 32-bit word."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import bits_of_two, eight_pairs, nibbles_of_two
from ggq.simd import f32x8

_BYTES, _HIGH, _QUANTS = 24, 4, 8
STRIDE = 8 * _BYTES


@njit
def _pair(block):
    high = bits_of_two(block + _HIGH, block + _BYTES + _HIGH, 16)
    return nibbles_of_two(block + _QUANTS, block + _BYTES + _QUANTS) | high


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights (Q5_1 adds its minimum: the sign turns)."""
    scales, mins = eight_pairs(block, _BYTES)
    c0, c1 = _pair(block), _pair(block + 2 * _BYTES)
    c2, c3 = _pair(block + 4 * _BYTES), _pair(block + 6 * _BYTES)
    return c0, c1, c2, c3, scales, -mins


KERNELS = matmul(unpack, 31, STRIDE, f32x8)

"""Q4_1 in SIMD: scale and minimum as halves, then 16 bytes of nibbles."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import eight_pairs, nibbles_of_two
from ggq.simd import dot4, f32x8

_BYTES, _QUANTS = 20, 4
STRIDE = 8 * _BYTES


@njit
def _pair(block):
    return nibbles_of_two(block + _QUANTS, block + _BYTES + _QUANTS)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights (Q4_1 adds its minimum: the sign turns)."""
    scales, mins = eight_pairs(block, _BYTES)
    c0, c1 = _pair(block), _pair(block + 2 * _BYTES)
    c2, c3 = _pair(block + 4 * _BYTES), _pair(block + 6 * _BYTES)
    return c0, c1, c2, c3, scales, -mins


KERNELS = matmul(unpack, dot4, STRIDE, f32x8)

"""Q4_1 in SIMD: scale and minimum as halves, then 16 bytes of nibbles."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import eight_pairs, nibbles_of_two
from ggq.quants.kernels.turned import nibbles_of, turned_blocks
from ggq.simd import f32x8, int64

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


@njit
def turned(block):
    """Return the same with the codes in the order of ``turned_blocks``."""
    scales, mins = eight_pairs(block, _BYTES)
    a, b, c, d = turned_blocks(block + _QUANTS, int64(_BYTES))
    return nibbles_of(a), nibbles_of(b), nibbles_of(c), nibbles_of(d), scales, -mins


KERNELS = matmul(unpack, 15, STRIDE, f32x8, turned=turned, halves=True)

"""Q4_0 in SIMD: a half and 16 bytes; low nibbles are the first 16 columns of a block."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import eight_halves, nibbles_of_two
from ggq.simd import dot4, f32x8, splat

_BYTES, _QUANTS = 18, 2
STRIDE = 8 * _BYTES
_OFFSET = 8.0


@njit
def _pair(block):
    return nibbles_of_two(block + _QUANTS, block + _BYTES + _QUANTS)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    scales = eight_halves(block, _BYTES)
    c0, c1 = _pair(block), _pair(block + 2 * _BYTES)
    c2, c3 = _pair(block + 4 * _BYTES), _pair(block + 6 * _BYTES)
    return c0, c1, c2, c3, scales, scales * splat(_OFFSET, f32x8)


KERNELS = matmul(unpack, dot4, STRIDE, f32x8, centre=_OFFSET)

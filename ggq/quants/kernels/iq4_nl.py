"""IQ4_NL in SIMD: Q4_0's layout; a nibble names a byte of a table."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import eight_halves, nibbles_of_two
from ggq.quants.tables import CURVE
from ggq.simd import dot4_wide, f32x8, lookup16, splat, u8x16, vector_constant

_BYTES, _QUANTS = 18, 2
STRIDE = 8 * _BYTES
OFFSET = 128.0
curve = vector_constant(u8x16, [int(v + OFFSET) for v in CURVE])


@njit
def _pair(block):
    nibbles = nibbles_of_two(block + _QUANTS, block + _BYTES + _QUANTS)
    return lookup16(curve(), nibbles)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    scales = eight_halves(block, _BYTES)
    c0, c1 = _pair(block), _pair(block + 2 * _BYTES)
    c2, c3 = _pair(block + 4 * _BYTES), _pair(block + 6 * _BYTES)
    return c0, c1, c2, c3, scales, scales * splat(OFFSET, f32x8)


KERNELS = matmul(unpack, dot4_wide, STRIDE, f32x8, centre=OFFSET)

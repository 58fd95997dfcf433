"""IQ4_NL in SIMD: Q4_0's layout; a nibble names a byte of a table."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import eight_halves, nibbles_of_two
from ggq.quants.kernels.turned import nibbles_of, turned_blocks
from ggq.quants.tables import CURVE
from ggq.simd import f32x8, int64, lookup16, splat, u8x16, vector_constant

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


@njit
def turned(block):
    """Return the same turned."""
    scales = eight_halves(block, _BYTES)
    a, b, c, d = turned_blocks(block + _QUANTS, int64(_BYTES))
    a, b = lookup16(curve(), nibbles_of(a)), lookup16(curve(), nibbles_of(b))
    c, d = lookup16(curve(), nibbles_of(c)), lookup16(curve(), nibbles_of(d))
    return a, b, c, d, scales, scales * splat(OFFSET, f32x8)


KERNELS = matmul(unpack, 255, STRIDE, f32x8, centre=OFFSET, turned=turned, halves=True)

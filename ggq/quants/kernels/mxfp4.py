"""MXFP4 in SIMD: 17 bytes, the first a power of two; nibbles are ordered as in Q4_0."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import eight_bytes, nibbles_of_two
from ggq.quants.kernels.turned import nibbles_of, turned_blocks
from ggq.quants.tables import E2M1
from ggq.simd import bitcast, f32x8, int64, lookup16, select, splat, u8x16, u32x8, vector_constant

_BYTES, _QUANTS = 17, 1
STRIDE = 8 * _BYTES
_OFFSET = 12.0
_table = vector_constant(u8x16, [int(v + _OFFSET) for v in E2M1])


@njit
def _pair(block):
    return lookup16(_table(), nibbles_of_two(block + _QUANTS, block + _BYTES + _QUANTS))


@njit
def _power(exponents):
    """Return 2^(e - 128) as float32, which is subnormal for the first two."""
    normal = (exponents - splat(1, u32x8)) << splat(23, u32x8)
    subnormal = splat(1 << 21, u32x8) << exponents
    return bitcast(select(exponents < splat(2, u32x8), subnormal, normal), f32x8)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    scales = _power(eight_bytes(block, _BYTES))
    c0, c1 = _pair(block), _pair(block + 2 * _BYTES)
    c2, c3 = _pair(block + 4 * _BYTES), _pair(block + 6 * _BYTES)
    return c0, c1, c2, c3, scales, scales * splat(_OFFSET, f32x8)


@njit
def turned(block):
    """Return the same turned."""
    scales = _power(eight_bytes(block, _BYTES))
    a, b, c, d = turned_blocks(block + _QUANTS, int64(_BYTES))
    a, b = lookup16(_table(), nibbles_of(a)), lookup16(_table(), nibbles_of(b))
    c, d = lookup16(_table(), nibbles_of(c)), lookup16(_table(), nibbles_of(d))
    return a, b, c, d, scales, scales * splat(_OFFSET, f32x8)


KERNELS = matmul(unpack, 24, STRIDE, f32x8, centre=_OFFSET, turned=turned, halves=True)

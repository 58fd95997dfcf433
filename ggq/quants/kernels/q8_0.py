"""Q8_0 in SIMD: signed bytes; adding 128 makes the codes unsigned, 128 x scale is the minimum."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import eight_halves
from ggq.simd import f32x8, join, load, splat, u8x32, u8x64

_BYTES, _QUANTS = 34, 2
STRIDE = 8 * _BYTES
_OFFSET = 128.0


@njit
def _pair(block):
    both = join(load(block + _QUANTS, u8x32), load(block + _BYTES + _QUANTS, u8x32))
    return both ^ splat(128, u8x64)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    scales = eight_halves(block, _BYTES)
    c0, c1 = _pair(block), _pair(block + 2 * _BYTES)
    c2, c3 = _pair(block + 4 * _BYTES), _pair(block + 6 * _BYTES)
    return c0, c1, c2, c3, scales, scales * splat(_OFFSET, f32x8)


KERNELS = matmul(unpack, 255, STRIDE, f32x8, centre=_OFFSET)

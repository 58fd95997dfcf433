"""Q2_K in SIMD: 16 bytes of 4-bit scales and minimums, then 2-bit codes."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.two_bits import two_bit_codes
from ggq.simd import convert, dot4, f32x16, load, load_half, splat, u8x16

STRIDE = 84
_SCALES, _QUANTS, _D, _DMIN = 0, 16, 80, 82


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    c0, c1, c2, c3 = two_bit_codes(block + _QUANTS)
    packed = load(block + _SCALES, u8x16)
    d, dmin = splat(load_half(block + _D), f32x16), splat(load_half(block + _DMIN), f32x16)
    scales = convert(packed & splat(15, u8x16), f32x16) * d
    return c0, c1, c2, c3, scales, convert(packed >> splat(4, u8x16), f32x16) * dmin


KERNELS = matmul(unpack, dot4, STRIDE, f32x16)

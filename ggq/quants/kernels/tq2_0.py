"""TQ2_0 in SIMD: Q2_K's two-bit fields under one scale."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.two_bits import two_bit_codes
from ggq.simd import dot4, f32x8, load_half, splat

STRIDE = 66
_D = 64


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    c0, c1, c2, c3 = two_bit_codes(block)
    scales = splat(load_half(block + _D), f32x8)  # codes 0..2 stand for -1..1
    return c0, c1, c2, c3, scales, scales


KERNELS = matmul(unpack, dot4, STRIDE, f32x8, centre=1)

"""TQ2_0 in SIMD: Q2_K's two-bit fields under one scale."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.turned import turned_two_bits
from ggq.quants.kernels.two_bits import two_bit_codes
from ggq.simd import f32x8, load_half, splat

STRIDE = 66
_D = 64


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    c0, c1, c2, c3 = two_bit_codes(block)
    scales = splat(load_half(block + _D), f32x8)  # codes 0..2 stand for -1..1
    return c0, c1, c2, c3, scales, scales


@njit
def turned(block):
    """Return the same turned."""
    c0, c1, c2, c3 = turned_two_bits(block)
    scales = splat(load_half(block + _D), f32x8)
    return c0, c1, c2, c3, scales, scales


KERNELS = matmul(unpack, 3, STRIDE, f32x8, centre=1, turned=turned)

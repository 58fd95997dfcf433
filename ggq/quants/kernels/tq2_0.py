"""TQ2_0 in SIMD: Q2_K's two-bit fields under one scale."""

from ggq.jit import kernel, njit
from ggq.quants.kernels.blocks import decode_rows, few_tokens
from ggq.quants.kernels.tiles import many_tokens
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


def few():
    """Compile the kernel for a few tokens."""

    def tq2_0_few(args, first, last):
        few_tokens(args, first, last, unpack, dot4, STRIDE, f32x8)

    return kernel(tq2_0_few)


def many():
    """Compile the kernel for many tokens."""

    def tq2_0_many(args, first, last):
        many_tokens(args, first, last, unpack, dot4, STRIDE, f32x8, 1)

    return kernel(tq2_0_many)


def rows():
    """Compile the kernel that decodes rows."""

    def tq2_0_rows(args, first, last):
        decode_rows(args, first, last, unpack, STRIDE)

    return kernel(tq2_0_rows)

"""Q5_0 in SIMD: Q4_0 with the fifth bits of a block in one 32-bit word."""

from ggq.jit import kernel, njit
from ggq.quants.kernels.blocks import decode_rows, few_tokens
from ggq.quants.kernels.fields import bits_of_two, eight_halves, nibbles_of_two
from ggq.quants.kernels.tiles import many_tokens
from ggq.simd import dot4, f32x8, splat

_BYTES, _HIGH, _QUANTS = 22, 2, 6
STRIDE = 8 * _BYTES
_OFFSET = 16.0


@njit
def _pair(block):
    high = bits_of_two(block + _HIGH, block + _BYTES + _HIGH, 16)
    return nibbles_of_two(block + _QUANTS, block + _BYTES + _QUANTS) | high


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    scales = eight_halves(block, _BYTES)
    c0, c1 = _pair(block), _pair(block + 2 * _BYTES)
    c2, c3 = _pair(block + 4 * _BYTES), _pair(block + 6 * _BYTES)
    return c0, c1, c2, c3, scales, scales * splat(_OFFSET, f32x8)


def few():
    """Compile the kernel for a few tokens."""

    def q5_0_few(args, first, last):
        few_tokens(args, first, last, unpack, dot4, STRIDE, f32x8)

    return kernel(q5_0_few)


def many():
    """Compile the kernel for many tokens."""

    def q5_0_many(args, first, last):
        many_tokens(args, first, last, unpack, dot4, STRIDE, f32x8, _OFFSET)

    return kernel(q5_0_many)


def rows():
    """Compile the kernel that decodes rows."""

    def q5_0_rows(args, first, last):
        decode_rows(args, first, last, unpack, STRIDE)

    return kernel(q5_0_rows)

"""Q4_1 in SIMD: scale and minimum as halves, then 16 bytes of nibbles."""

from ggq.jit import kernel, njit
from ggq.quants.kernels.blocks import decode_rows, few_tokens
from ggq.quants.kernels.fields import eight_pairs, nibbles_of_two
from ggq.quants.kernels.tiles import many_tokens
from ggq.simd import dot4, f32x8

_BYTES, _QUANTS = 20, 4
STRIDE = 8 * _BYTES


@njit
def _pair(block):
    return nibbles_of_two(block + _QUANTS, block + _BYTES + _QUANTS)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights (Q4_1 adds its minimum: the sign turns)."""
    scales, mins = eight_pairs(block, _BYTES)
    c0, c1 = _pair(block), _pair(block + 2 * _BYTES)
    c2, c3 = _pair(block + 4 * _BYTES), _pair(block + 6 * _BYTES)
    return c0, c1, c2, c3, scales, -mins


def few():
    """Compile the kernel for a few tokens."""

    def q4_1_few(args, first, last):
        few_tokens(args, first, last, unpack, dot4, STRIDE, f32x8)

    return kernel(q4_1_few)


def many():
    """Compile the kernel for many tokens."""

    def q4_1_many(args, first, last):
        many_tokens(args, first, last, unpack, dot4, STRIDE, f32x8, 0)

    return kernel(q4_1_many)


def rows():
    """Compile the kernel that decodes rows."""

    def q4_1_rows(args, first, last):
        decode_rows(args, first, last, unpack, STRIDE)

    return kernel(q4_1_rows)

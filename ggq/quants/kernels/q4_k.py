"""Q4_K in SIMD: 32 bytes hold 32 low, then 32 high nibbles of 64 consecutive columns."""

from ggq.jit import kernel, njit
from ggq.quants.kernels.blocks import decode_rows, few_tokens
from ggq.quants.kernels.fields import halves, masked, six_bit_pairs, twice32
from ggq.quants.kernels.tiles import many_tokens
from ggq.simd import dot4, f32x8

STRIDE = 144
_QUANTS = 16
_nibble = halves(0, 4)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    scales, mins = six_bit_pairs(block)
    codes = block + _QUANTS
    c0 = masked(twice32(codes) >> _nibble(), 15)
    c1 = masked(twice32(codes + 32) >> _nibble(), 15)
    c2 = masked(twice32(codes + 64) >> _nibble(), 15)
    c3 = masked(twice32(codes + 96) >> _nibble(), 15)
    return c0, c1, c2, c3, scales, mins


def few():
    """Compile the kernel for a few tokens."""

    def q4_k_few(args, first, last):
        few_tokens(args, first, last, unpack, dot4, STRIDE, f32x8)

    return kernel(q4_k_few)


def many():
    """Compile the kernel for many tokens."""

    def q4_k_many(args, first, last):
        many_tokens(args, first, last, unpack, dot4, STRIDE, f32x8, 0)

    return kernel(q4_k_many)


def rows():
    """Compile the kernel that decodes rows."""

    def q4_k_rows(args, first, last):
        decode_rows(args, first, last, unpack, STRIDE)

    return kernel(q4_k_rows)

"""Q4_K in SIMD: 32 bytes hold 32 low, then 32 high nibbles of 64 consecutive columns."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import (
    halves,
    masked,
    six_bit_pairs,
    twice32,
)
from ggq.quants.kernels.turned import nibbles_of, turned_chunks
from ggq.simd import f32x8

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


@njit
def turned(block):
    """Return the same with the codes in the order of ``turn``."""
    scales, mins = six_bit_pairs(block)
    a, b, c, d = turned_chunks(block + _QUANTS)
    return nibbles_of(a), nibbles_of(b), nibbles_of(c), nibbles_of(d), scales, mins


KERNELS = matmul(unpack, 15, STRIDE, f32x8, turned=turned)

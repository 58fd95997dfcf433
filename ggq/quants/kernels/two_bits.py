"""The two-bit fields of Q2_K and Q3_K: 32 bytes hold 128 columns, 2 bits of each in turn."""

from ggq.jit import njit
from ggq.quants.kernels.fields import halves, masked, twice32

_right_0_2 = halves(0, 2)
_right_4_6 = halves(4, 6)


@njit
def two_bit_codes(codes):
    """Return 256 codes of 2 bits from 64 bytes as four vectors in column order."""
    first, second = twice32(codes), twice32(codes + 32)
    c0, c1 = masked(first >> _right_0_2(), 3), masked(first >> _right_4_6(), 3)
    c2, c3 = masked(second >> _right_0_2(), 3), masked(second >> _right_4_6(), 3)
    return c0, c1, c2, c3

"""Q4_1 in SIMD: scale and minimum as halves, then 16 bytes of nibbles."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import eight_pairs, nibbles_of_two, split_pairs
from ggq.quants.kernels.turned import PERMUTES, nibbles_of, turned_blocks, turned_fours
from ggq.simd import f32x8, int64, load, shuffle, u32x16

_BYTES, _QUANTS = 20, 4
STRIDE = 8 * _BYTES
# Eight blocks are 40 dwords; vectors begin at the dwords 0, 16, 21 and 24.
_pairs_of_seven = shuffle([*range(0, 35, 5), *[0] * 9])
_pairs_of_eight = shuffle([*range(7), 16 + 35 - 24])
_codes_of_four = shuffle([d for d in range(20) if d % 5])
_codes_of_next = shuffle([d - 21 if d < 37 else 16 + d - 24 for d in range(20, 40) if d % 5])


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


@njit
def turned(block):
    """Return the same with the codes in the order of ``turned_blocks``."""
    if PERMUTES:  # half the instructions of gathering eight blocks
        first, second, last = (
            load(block, u32x16),
            load(block + 64, u32x16),
            load(block + 96, u32x16),
        )
        scales, mins = split_pairs(_pairs_of_eight(_pairs_of_seven(first, second), last))
        four, other = _codes_of_four(first, second), _codes_of_next(load(block + 84, u32x16), last)
        a, b, c, d = turned_fours(four, other)
    else:
        scales, mins = eight_pairs(block, _BYTES)
        a, b, c, d = turned_blocks(block + _QUANTS, int64(_BYTES))
    return nibbles_of(a), nibbles_of(b), nibbles_of(c), nibbles_of(d), scales, -mins


KERNELS = matmul(unpack, 15, STRIDE, f32x8, turned=turned, halves=True)

"""Packed nibbles in the order in which the decode kernel multiplies them (decode.py).

A dword is moved while it still holds two codes for each of its bytes, which halves the shuffles.
"""

from ggq.jit import njit
from ggq.quants.kernels.fields import halves, masked, quarters
from ggq.simd import isa, join, load, overload, shuffle, turn, u32x4, u32x8, u32x16, vector_constant

TURNED = [4 * (i % 4) + i // 4 for i in range(16)]  # the 16 columns that lane i of 16 sums up
_turned_16 = shuffle(TURNED)


def turn_lanes(values):
    """Return a value per 16 columns in the order of turned codes; values per 32 as they are."""
    raise NotImplementedError


@overload(turn_lanes, jit_options={"forceinline": True})
def _overload_turn_lanes(values):
    if values.lanes == 16:
        return lambda values: _turned_16(values, values)
    return lambda values: values


@njit
def turn_unpacked(unpacked):
    """Turn what ``unpack`` returned of 256 weights (decode.py says how)."""
    c0, c1, c2, c3, scales, mins = unpacked
    c0, c1, c2, c3 = turn((c0, c1, c2, c3))
    return c0, c1, c2, c3, turn_lanes(scales), turn_lanes(mins)


def _chunk_lanes(i):
    """Return where the dwords i and 4 + i of four chunks of eight stand, twice."""
    return ([8 * k + i for k in range(4)] + [8 * k + 4 + i for k in range(4)]) * 2


def _block_lanes(i):
    """Return where dword i of eight blocks of four stands: even blocks before odd ones, twice."""
    return [4 * k + i for k in (0, 2, 4, 6, 1, 3, 5, 7)] * 2


_chunks_0, _chunks_1 = shuffle(_chunk_lanes(0)), shuffle(_chunk_lanes(1))
_chunks_2, _chunks_3 = shuffle(_chunk_lanes(2)), shuffle(_chunk_lanes(3))
_blocks_0, _blocks_1 = shuffle(_block_lanes(0)), shuffle(_block_lanes(1))
_blocks_2, _blocks_3 = shuffle(_block_lanes(2)), shuffle(_block_lanes(3))
PERMUTES = isa.SET.lanes == 16  # any 16 of 32 dwords in one instruction


@njit
def _turned_twice(a, b, c, d):
    a, b, c, d = turn((a, b, c, d))
    return join(a, a), join(b, b), join(c, c), join(d, d)


@njit
def turned_chunks(at):
    """Return 128 bytes as ``turn`` orders the columns of Q4_K, each dword in both halves."""
    if PERMUTES:
        a, b = load(at, u32x16), load(at + 64, u32x16)
        return _chunks_0(a, b), _chunks_1(a, b), _chunks_2(a, b), _chunks_3(a, b)
    a, b = load(at, u32x8), load(at + 32, u32x8)
    return _turned_twice(a, b, load(at + 64, u32x8), load(at + 96, u32x8))


@njit
def _two_blocks(at, stride):
    return join(load(at, u32x4), load(at + stride, u32x4))


@njit
def turned_fours(a, b):
    """Return what ``turned_blocks`` does of two times four blocks that stand together."""
    return _blocks_0(a, b), _blocks_1(a, b), _blocks_2(a, b), _blocks_3(a, b)


@njit
def turned_blocks(at, stride):
    """Return eight times 16 bytes likewise; the nibbles of a block are 32 columns of ``halves``."""
    if PERMUTES:
        a = join(_two_blocks(at, stride), _two_blocks(at + 2 * stride, stride))
        at += 4 * stride
        return turned_fours(a, join(_two_blocks(at, stride), _two_blocks(at + 2 * stride, stride)))
    a, b = _two_blocks(at, stride), _two_blocks(at + 2 * stride, stride)
    return _turned_twice(
        a, b, _two_blocks(at + 4 * stride, stride), _two_blocks(at + 6 * stride, stride)
    )


_nibble_of_half = halves(0, 4)


@njit
def nibbles_of(dwords):
    """Return the low nibbles of the first half's bytes, the high ones of the second's."""
    return masked(dwords >> _nibble_of_half(), 15)


def _two_bit_lanes(i):
    """Return where dwords i of eight quarters stand: of the first 64 bytes, then of the second."""
    half = [i, i, 8 + i, 8 + i, 4 + i, 4 + i, 12 + i, 12 + i]
    return [*half, *[16 + j for j in half]]


_two_bits_0, _two_bits_1 = shuffle(_two_bit_lanes(0)), shuffle(_two_bit_lanes(1))
_two_bits_2, _two_bits_3 = shuffle(_two_bit_lanes(2)), shuffle(_two_bit_lanes(3))
_two, _four_of_odd = quarters(2, 2, 2, 2), vector_constant(u32x16, [0, 4] * 8)


@njit
def turned_two_bits(at):
    """Return the two-bit fields of 64 bytes (two_bits.py) turned."""
    a = load(at, u32x16)
    b, shift = a >> _two(), _four_of_odd()
    t0, t1, t2, t3 = _two_bits_0(a, b), _two_bits_1(a, b), _two_bits_2(a, b), _two_bits_3(a, b)
    t0, t1 = masked(t0 >> shift, 3), masked(t1 >> shift, 3)
    return t0, t1, masked(t2 >> shift, 3), masked(t3 >> shift, 3)

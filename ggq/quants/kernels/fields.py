"""Reading packed fields into vectors: shifts per half, K-quant scale tables, gathered halves.

All code vectors are in column order: 64 columns per u8x64. It knows no block type.
"""

from ggq.jit import njit
from ggq.simd import (
    bitcast,
    convert,
    f16x8,
    f16x16,
    f32x8,
    f32x16,
    high_half,
    i32x16,
    i64x2,
    join,
    load,
    low_half,
    mask64,
    select,
    shuffle,
    splat,
    u8x8,
    u8x16,
    u8x32,
    u8x64,
    u32x4,
    u32x8,
    u32x16,
    uint8,
    uint16,
    uint32,
    uint64,
    vector_constant,
    with_lane,
    zeros,
)


def halves(low, high):
    """Return a constant of 16 dwords: ``low`` in the first eight, ``high`` in the last eight."""
    return vector_constant(u32x16, [low] * 8 + [high] * 8)


def quarters(a, b, c, d):
    """Return a constant of 16 dwords, four of each value."""
    return vector_constant(u32x16, [a] * 4 + [b] * 4 + [c] * 4 + [d] * 4)


_nibble_of_quarter = quarters(0, 4, 0, 4)


@njit
def masked(dwords, bits):
    """Keep ``bits`` of every byte."""
    return bitcast(dwords, u8x64) & splat(bits, u8x64)


@njit
def twice32(address):
    """Load 32 bytes into both halves of 16 dwords."""
    value = load(address, u8x32)
    return bitcast(join(value, value), u32x16)


@njit
def nibbles_of_two(a, b):
    """Return the 64 nibbles of two 16-byte runs, each as its 16 low ones, then its 16 high ones."""
    x, y = load(a, u8x16), load(b, u8x16)
    both = bitcast(join(join(x, x), join(y, y)), u32x16)
    return masked(both >> _nibble_of_quarter(), 15)


@njit
def bits_of_two(a, b, value):
    """Return ``value`` in each of 64 bytes whose bit is set in two 32-bit words."""
    low = uint64(load(a, uint16)) | (uint64(load(a + 2, uint16)) << uint64(16))
    high = uint64(load(b, uint16)) | (uint64(load(b + 2, uint16)) << uint64(16))
    return select(mask64(low | (high << uint64(32))), splat(value, u8x64), zeros(u8x64))


_last_of_eight = shuffle([7] * 16)
_seventh_of_eight = shuffle([6] * 16)


@njit
def last_half(end):
    """Return the half that ends at ``end`` in 16 lanes.

    Sixteen bytes are widened as they are loaded, and one shuffle follows; a half alone takes three.
    """
    values = convert(load(end - 16, f16x8), f32x8)
    return _last_of_eight(values, values)


@njit
def last_two_halves(end):
    """Return the two halves that end at ``end`` in 16 lanes each."""
    values = convert(load(end - 16, f16x8), f32x8)
    return _seventh_of_eight(values, values), _last_of_eight(values, values)


@njit
def _four_words(address, stride):
    """Gather four 16-bit words ``stride`` bytes apart in a scalar register: shuffles are dear."""
    low = uint64(load(address, uint16)) | uint64(load(address + stride, uint16)) << uint64(16)
    high = uint64(load(address + 2 * stride, uint16))
    high |= uint64(load(address + 3 * stride, uint16)) << uint64(16)
    return low | high << uint64(32)


@njit
def eight_halves(address, stride):
    """Gather eight halves ``stride`` bytes apart and widen them."""
    v = with_lane(zeros(i64x2), 0, _four_words(address, stride))
    v = with_lane(v, 1, _four_words(address + 4 * stride, stride))
    return convert(bitcast(v, f16x8), f32x8)


@njit
def eight_bytes(address, stride):
    """Gather eight bytes ``stride`` apart as u32x8."""
    v = zeros(u8x8)
    v = with_lane(v, 0, load(address, uint8))
    v = with_lane(v, 1, load(address + stride, uint8))
    v = with_lane(v, 2, load(address + 2 * stride, uint8))
    v = with_lane(v, 3, load(address + 3 * stride, uint8))
    v = with_lane(v, 4, load(address + 4 * stride, uint8))
    v = with_lane(v, 5, load(address + 5 * stride, uint8))
    v = with_lane(v, 6, load(address + 6 * stride, uint8))
    v = with_lane(v, 7, load(address + 7 * stride, uint8))
    return convert(v, u32x8)


_even = shuffle(range(0, 16, 2))
_odd = shuffle(range(1, 16, 2))


@njit
def split_pairs(v):
    """Return the first and the second halves of eight pairs, widened."""
    both = convert(bitcast(v, f16x16), f32x16)
    return _even(both, both), _odd(both, both)


@njit
def eight_pairs(address, stride):
    """Gather eight pairs of halves ``stride`` bytes apart; return the first and the second ones."""
    v = zeros(u32x8)
    v = with_lane(v, 0, load(address, uint32))
    v = with_lane(v, 1, load(address + stride, uint32))
    v = with_lane(v, 2, load(address + 2 * stride, uint32))
    v = with_lane(v, 3, load(address + 3 * stride, uint32))
    v = with_lane(v, 4, load(address + 4 * stride, uint32))
    v = with_lane(v, 5, load(address + 5 * stride, uint32))
    v = with_lane(v, 6, load(address + 6 * stride, uint32))
    v = with_lane(v, 7, load(address + 7 * stride, uint32))
    return split_pairs(v)


_HEAD = 4  # d and dmin stand before the 12 bytes of 6-bit scales in Q4_K and Q5_K
_low_bytes = shuffle([_HEAD + i for i in (0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 8, 9, 10, 11)])
_high_bytes = shuffle([_HEAD + i for i in (0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7)])
_low_shift = vector_constant(u32x4, [0, 0, 0, 4])
_two = vector_constant(u32x4, [2] * 4)
_low_mask = vector_constant(u8x16, [63] * 4 + [15] * 4 + [63] * 4 + [15] * 4)
_high_mask = vector_constant(u8x16, ([0] * 4 + [0x30] * 4) * 2)
_first_two = shuffle([0] * 8 + [1] * 8)


@njit
def six_bit_pairs(block):
    """Return (d x scale, dmin x minimum) of a Q4_K or Q5_K block: two f32x8 (get_scale_min_k4)."""
    head = load(block, u8x16)
    # Shifts of four bytes at once: what crosses into a byte is masked.
    low = bitcast(bitcast(_low_bytes(head, head), u32x4) >> _low_shift(), u8x16) & _low_mask()
    high = bitcast(bitcast(_high_bytes(head, head), u32x4) >> _two(), u8x16) & _high_mask()
    factors = convert(bitcast(head, f16x8), f32x8)
    scaled = convert(convert(low | high, i32x16), f32x16) * _first_two(factors, factors)
    return low_half(scaled), high_half(scaled)

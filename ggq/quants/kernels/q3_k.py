"""Q3_K in SIMD: 2-bit codes, their third bits in eight planes of 32 bytes, 6-bit signed scales."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import halves, last_half, masked, quarters, twice32
from ggq.quants.kernels.turned import TURNED
from ggq.quants.kernels.two_bits import two_bit_codes
from ggq.simd import convert, f32x16, load, shuffle, splat, turn, u8x16, u32x16, vector_constant

STRIDE = 110
_HIGH, _QUANTS, _SCALES = 0, 32, 96  # d ends the block
_OFFSET = 4.0  # codes 0..7 stand for -4..3
# Plane 2j belongs to columns 64j .. 64j+31, plane 2j+1 to the next 32; all go to bit 2.
_left_2_1 = halves(2, 1)
_right_0_1 = halves(0, 1)
_right_2_3 = halves(2, 3)
_right_4_5 = halves(4, 5)
# Twelve bytes of scales end with d: a 16-byte load that starts two bytes early stays in the block.
_low_bytes = shuffle([2 + i % 8 for i in range(16)])
_high_bytes = shuffle([10 + i % 4 for i in range(16)])
_low_shift = quarters(0, 0, 4, 4)
_high_shift = quarters(0, 2, 4, 6)
# The same in the order of turned codes, where lane j belongs to the columns of TURNED[j].
_turned_low_bytes = shuffle([2 + i % 8 for i in TURNED])
_turned_high_bytes = shuffle([10 + i % 4 for i in TURNED])
_turned_low_shift = vector_constant(u32x16, [i // 8 * 4 for i in TURNED])
_turned_high_shift = vector_constant(u32x16, [i // 4 * 2 for i in TURNED])
_low_mask = quarters(15, 15, 15, 15)
_high_mask = quarters(3, 3, 3, 3)
_four = quarters(4, 4, 4, 4)


@njit
def _scales(block, low, low_shift, high, high_shift):
    low = (convert(low, u32x16) >> low_shift) & _low_mask()
    high = (convert(high, u32x16) >> high_shift) & _high_mask()
    numbers = convert(low | (high << _four()), f32x16) - splat(32.0, f32x16)
    scales = numbers * last_half(block + STRIDE)
    return scales, scales * splat(_OFFSET, f32x16)


@njit
def _codes(block):
    c0, c1, c2, c3 = two_bit_codes(block + _QUANTS)
    planes = twice32(block + _HIGH)
    c0 = c0 | masked(planes << _left_2_1(), 4)
    c1 = c1 | masked(planes >> _right_0_1(), 4)
    c2 = c2 | masked(planes >> _right_2_3(), 4)
    c3 = c3 | masked(planes >> _right_4_5(), 4)
    return c0, c1, c2, c3


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    c0, c1, c2, c3 = _codes(block)
    packed = load(block + _SCALES - 2, u8x16)
    low, high = _low_bytes(packed, packed), _high_bytes(packed, packed)
    scales, mins = _scales(block, low, _low_shift(), high, _high_shift())
    return c0, c1, c2, c3, scales, mins


@njit
def turned(block):
    """Return the same turned."""
    c0, c1, c2, c3 = turn(_codes(block))
    packed = load(block + _SCALES - 2, u8x16)
    low, high = _turned_low_bytes(packed, packed), _turned_high_bytes(packed, packed)
    scales, mins = _scales(block, low, _turned_low_shift(), high, _turned_high_shift())
    return c0, c1, c2, c3, scales, mins


KERNELS = matmul(unpack, 7, STRIDE, f32x16, centre=_OFFSET, turned=turned)

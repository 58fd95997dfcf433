"""Q6_K in SIMD: 64 bytes hold low nibbles of two times 64 columns, 32 bytes the upper 2 bits."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import halves, last_half, masked, twice32
from ggq.quants.kernels.turned import turn_lanes
from ggq.simd import bitcast, convert, f32x16, i8x16, load, splat, turn, u8x64, u32x16

STRIDE = 210
_LOW, _HIGH, _SCALES = 0, 128, 192  # d ends the block
_OFFSET = 32.0  # codes 0..63 stand for -32..31
_left_4_2 = halves(4, 2)
_right_0_2 = halves(0, 2)
_right_4 = halves(4, 4)


@njit
def _half_block(low, high):
    nibbles, upper = bitcast(load(low, u8x64), u32x16), twice32(high)
    first = masked(nibbles, 15) | masked(upper << _left_4_2(), 0x30)
    second = masked(nibbles >> _right_4(), 15) | masked(upper >> _right_0_2(), 0x30)
    return first, second


@njit
def _codes(block):
    c0, c1 = _half_block(block + _LOW, block + _HIGH)
    c2, c3 = _half_block(block + _LOW + 64, block + _HIGH + 32)
    return c0, c1, c2, c3


@njit
def _scales(block, numbers):
    scales = convert(numbers, f32x16) * last_half(block + STRIDE)
    return scales, scales * splat(_OFFSET, f32x16)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    c0, c1, c2, c3 = _codes(block)
    scales, mins = _scales(block, load(block + _SCALES, i8x16))
    return c0, c1, c2, c3, scales, mins


@njit
def turned(block):
    """Return the same turned."""
    c0, c1, c2, c3 = turn(_codes(block))
    scales, mins = _scales(block, turn_lanes(load(block + _SCALES, i8x16)))
    return c0, c1, c2, c3, scales, mins


KERNELS = matmul(unpack, 63, STRIDE, f32x16, centre=_OFFSET, turned=turned)

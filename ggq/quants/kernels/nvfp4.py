"""NVFP4 in SIMD: per 16 weights an E4M3 scale, 8 bytes of low, then of high nibbles."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.fields import masked
from ggq.quants.tables import E2M1
from ggq.simd import (
    bitcast,
    convert,
    f16x16,
    f32x16,
    i64x4,
    load,
    lookup16,
    select,
    shuffle,
    splat,
    u8x16,
    u16x16,
    u32x4,
    u32x16,
    uint32,
    vector_constant,
    with_lane,
    zeros,
)

_BYTES, _QUANTS = 36, 4
STRIDE = 4 * _BYTES
_OFFSET = 12.0
_table = vector_constant(u8x16, [int(v + _OFFSET) for v in E2M1])
_twice = shuffle([i // 2 for i in range(8)])
_nibble = vector_constant(u32x16, [0, 0, 4, 4] * 4)


@njit
def _codes(block):
    groups = load(block + _QUANTS, i64x4)
    doubled = bitcast(_twice(groups, groups), u32x16)
    return lookup16(_table(), masked(doubled >> _nibble(), 15))


@njit
def _scales(block):
    """Return half the E4M3 values, as the table holds twice the codes'; 0x7F reads as zero.

    Seen as a half the byte is 2^8 times too small, subnormal numbers included.
    """
    packed = with_lane(zeros(u32x4), 0, load(block, uint32))
    packed = with_lane(packed, 1, load(block + _BYTES, uint32))
    packed = with_lane(packed, 2, load(block + 2 * _BYTES, uint32))
    packed = with_lane(packed, 3, load(block + 3 * _BYTES, uint32))
    numbers = bitcast(packed, u8x16)
    numbers = select(numbers == splat(127, u8x16), zeros(u8x16), numbers & splat(127, u8x16))
    halves = convert(numbers, u16x16) << splat(7, u16x16)
    return convert(bitcast(halves, f16x16), f32x16) * splat(128.0, f32x16)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    scales = _scales(block)
    c0, c1 = _codes(block), _codes(block + _BYTES)
    c2, c3 = _codes(block + 2 * _BYTES), _codes(block + 3 * _BYTES)
    return c0, c1, c2, c3, scales, scales * splat(_OFFSET, f32x16)


KERNELS = matmul(unpack, 24, STRIDE, f32x16, centre=_OFFSET)

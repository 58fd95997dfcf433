"""IQ1_M in SIMD: IQ1_S with a shift per 8 weights and a scale per 16."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.iq1_s import table
from ggq.quants.kernels.lattice import nibbles_of_bytes, wide_codes
from ggq.simd import (
    bitcast,
    convert,
    f16x16,
    f32x16,
    gather,
    i64x8,
    lane,
    load,
    select,
    shuffle,
    splat,
    stack,
    store,
    u8x16,
    u8x32,
    u8x64,
    u16x4,
    u16x16,
    uint16,
    vector_constant,
    zeros,
)

STRIDE = 56
_QUANTS, _HIGH, _SCALES = 0, 32, 48
_OFFSET = 9.0  # entries hold 8 x (value + 1); 0 or 2 more, and 9 less, make the shift -1 or 1
_four_times = shuffle([i // 4 for i in range(16)])
_threes = vector_constant(u16x16, [0, 3, 6, 9] * 4)
_first = shuffle([i // 8 for i in range(64)])
_second = shuffle([8 + i // 8 for i in range(64)])
_third = shuffle([16 + i // 8 for i in range(64)])
_fourth = shuffle([24 + i // 8 for i in range(64)])


@njit
def _quarter(codes):
    return bitcast(gather(table(), codes, uint16, i64x8), u8x64)


@njit
def _scales(block):
    """Return an eighth of the scales; the half stands in the upper nibbles of their words."""
    words = load(block + _SCALES, u16x4)
    d = (lane(words, 0) >> uint16(12)) | ((lane(words, 1) >> uint16(12)) << uint16(4))
    d |= ((lane(words, 2) >> uint16(12)) << uint16(8)) | (lane(words, 3) & uint16(0xF000))
    number = convert((_four_times(words, words) >> _threes()) & splat(7, u16x16), f32x16)
    half = convert(bitcast(splat(d, u16x16), f16x16), f32x16)
    return half * splat(0.125, f32x16) * (number + number + splat(1.0, f32x16))


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    nibbles, codes = nibbles_of_bytes(load(block + _HIGH, u8x16)), stack(64)
    store(codes, wide_codes(load(block + _QUANTS, u8x32), nibbles & splat(7, u8x32)))
    positive = select(nibbles > splat(7, u8x32), zeros(u8x32), splat(2, u8x32))
    c0 = _quarter(codes) + _first(positive, positive)
    c1 = _quarter(codes + 16) + _second(positive, positive)
    c2 = _quarter(codes + 32) + _third(positive, positive)
    c3 = _quarter(codes + 48) + _fourth(positive, positive)
    scales = _scales(block)
    return c0, c1, c2, c3, scales, scales * splat(_OFFSET, f32x16)


KERNELS = matmul(unpack, 18, STRIDE, f32x16, centre=_OFFSET)

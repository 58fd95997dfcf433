"""Q1_0 in SIMD: 128 signs under one scale."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.simd import (
    f32x4,
    f32x8,
    join,
    load,
    load_half,
    mask64,
    select,
    splat,
    u8x64,
    uint64,
    zeros,
)

_BYTES, _QUANTS = 18, 2
STRIDE = 2 * _BYTES


@njit
def _codes(bits):
    return select(mask64(load(bits, uint64)), splat(2, u8x64), zeros(u8x64))


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    low, high = splat(load_half(block), f32x4), splat(load_half(block + _BYTES), f32x4)
    scales = join(low, high)  # codes 0 and 2 stand for -1 and 1
    first, second = block + _QUANTS, block + _BYTES + _QUANTS
    c0, c1 = _codes(first), _codes(first + 8)
    c2, c3 = _codes(second), _codes(second + 8)
    return c0, c1, c2, c3, scales, scales


KERNELS = matmul(unpack, 2, STRIDE, f32x8, centre=1)

"""Q2_0 in SIMD: 64 weights under one scale, four neighbours a byte."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.lattice import two_bit_neighbours
from ggq.simd import f32x2, f32x8, join, load, load_half, splat, u8x16

_BYTES, _QUANTS = 18, 2
STRIDE = 4 * _BYTES


@njit
def _codes(block):
    return two_bit_neighbours(load(block + _QUANTS, u8x16))


@njit
def _scale(block):
    return splat(load_half(block), f32x2)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    second, third, fourth = block + _BYTES, block + 2 * _BYTES, block + 3 * _BYTES
    low, high = join(_scale(block), _scale(second)), join(_scale(third), _scale(fourth))
    scales = join(low, high)  # codes 0..3 stand for -1..2
    return _codes(block), _codes(second), _codes(third), _codes(fourth), scales, scales


KERNELS = matmul(unpack, 3, STRIDE, f32x8, centre=1)

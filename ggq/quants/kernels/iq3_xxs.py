"""IQ3_XXS in SIMD: a byte names 4 magnitudes; per 32 weights a word of signs and scale."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.lattice import LARGEST, magnitudes, sign_words, signed, spread_sevens
from ggq.simd import (
    bitcast,
    constant_table,
    convert,
    f32x8,
    float32,
    gather,
    load,
    load_half,
    splat,
    u8x64,
    u32x8,
    u32x16,
    uint8,
)

STRIDE = 98
_QUANTS, _WORDS = 2, 66
_largest = LARGEST["IQ3_XXS"]
_table = constant_table(magnitudes("IQ3_XXS"))


@njit
def _quarter(codes, bits):
    return signed(bitcast(gather(_table(), codes, uint8, u32x16), u8x64), bits, _largest)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    words = load(block + _WORDS, u32x8)
    number = convert(words >> splat(28, u32x8), f32x8) + splat(0.5, f32x8)
    scales = splat(load_half(block) * float32(0.5), f32x8) * number
    b0, b1, b2, b3 = sign_words(spread_sevens(words))
    codes = block + _QUANTS
    c0, c1 = _quarter(codes, b0), _quarter(codes + 16, b1)
    c2, c3 = _quarter(codes + 32, b2), _quarter(codes + 48, b3)
    return c0, c1, c2, c3, scales, scales * splat(_largest, f32x8)


KERNELS = matmul(unpack, 2 * _largest, STRIDE, f32x8, centre=_largest)

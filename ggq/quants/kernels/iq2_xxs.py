"""IQ2_XXS in SIMD: per 32 weights four bytes of codes and a word of signs and scale."""

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
    i64x4,
    join,
    load,
    load_half,
    shuffle,
    splat,
    u8x64,
    u32x8,
    u32x16,
    uint8,
)

STRIDE = 66
_QUANTS = 2
_largest = LARGEST["IQ2_XXS"]
_table = constant_table(magnitudes("IQ2_XXS"))
_words = shuffle(range(1, 16, 2))


@njit
def _quarter(codes, bits):
    low, high = gather(_table(), codes, uint8, i64x4), gather(_table(), codes + 8, uint8, i64x4)
    return signed(bitcast(join(low, high), u8x64), bits, _largest)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    codes = block + _QUANTS
    fields = load(codes, u32x16)
    words = _words(fields, fields)
    number = convert(words >> splat(28, u32x8), f32x8) + splat(0.5, f32x8)
    scales = splat(load_half(block) * float32(0.25), f32x8) * number
    b0, b1, b2, b3 = sign_words(spread_sevens(words))
    c0, c1 = _quarter(codes, b0), _quarter(codes + 16, b1)
    c2, c3 = _quarter(codes + 32, b2), _quarter(codes + 48, b3)
    return c0, c1, c2, c3, scales, scales * splat(_largest, f32x8)


KERNELS = matmul(unpack, 2 * _largest, STRIDE, f32x8, centre=_largest)

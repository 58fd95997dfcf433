"""IQ2_XS in SIMD: 16 bits name 8 magnitudes (9 bits) and 7 of their signs."""

from ggq.jit import njit
from ggq.quants.kernels.builders import matmul
from ggq.quants.kernels.lattice import (
    LARGEST,
    magnitudes,
    nibble_scales,
    sign_words,
    signed,
    with_parity,
)
from ggq.simd import (
    bitcast,
    constant_table,
    convert,
    f32x16,
    float32,
    gather,
    i64x8,
    load,
    load_half,
    splat,
    stack,
    store,
    u8x32,
    u8x64,
    u16x32,
    u32x8,
    uint16,
)

STRIDE = 74
_QUANTS, _SCALES = 2, 66
_largest = LARGEST["IQ2_XS"]
_table = constant_table(magnitudes("IQ2_XS"))


@njit
def _quarter(codes, bits):
    return signed(bitcast(gather(_table(), codes, uint16, i64x8), u8x64), bits, _largest)


@njit
def unpack(block):
    """Return codes, scales and minimums of 256 weights."""
    packed, codes = load(block + _QUANTS, u16x32), stack(64)
    store(codes, packed & splat(511, u16x32))
    sevens = convert(packed >> splat(9, u16x32), u8x32)
    b0, b1, b2, b3 = sign_words(with_parity(bitcast(sevens, u32x8)))
    number = nibble_scales(block + _SCALES) + splat(0.5, f32x16)
    scales = splat(load_half(block) * float32(0.25), f32x16) * number
    c0, c1 = _quarter(codes, b0), _quarter(codes + 16, b1)
    c2, c3 = _quarter(codes + 32, b2), _quarter(codes + 48, b3)
    return c0, c1, c2, c3, scales, scales * splat(_largest, f32x16)


KERNELS = matmul(unpack, 2 * _largest, STRIDE, f32x16, centre=_largest)

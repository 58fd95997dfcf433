"""What the kernels of the lattice types (IQ1, IQ2, IQ3) share: tables of entries, signs, codes.

A code names an entry of 4 or 8 bytes; signed weights become unsigned codes by adding the largest
magnitude.
"""

import numpy as np

from ggq.jit import njit
from ggq.quants.lattices import lattice
from ggq.simd import (
    bitcast,
    convert,
    f32x16,
    i64x4,
    lane,
    load,
    mask64,
    select,
    shuffle,
    splat,
    u8x8,
    u8x32,
    u8x64,
    u16x16,
    u16x32,
    u32x8,
    u32x16,
    vector_constant,
)

LARGEST = {"IQ2_XXS": 43, "IQ2_XS": 43, "IQ2_S": 43, "IQ3_XXS": 62, "IQ3_S": 15}


def magnitudes(name: str) -> np.ndarray:
    """Return a lattice's entries as uint8 (vectors, elements)."""
    entries = lattice(name).astype(np.uint8)
    assert entries.max() == LARGEST[name]
    return entries


def eighths() -> np.ndarray:
    """Return 8 x (value + 1) of IQ1's entries as uint8 (vectors, 8)."""
    return (8 * lattice("IQ1_S") + 8).astype(np.uint8)


@njit
def signed(values, bits, largest):
    """Return ``largest`` plus the magnitudes, or minus those whose bit is set (64 bits)."""
    middle = splat(largest, u8x64)
    return select(mask64(bits), middle - values, middle + values)


@njit
def with_parity(sevens):
    """Set the top bit of each byte so that its number of set bits is even (u32x8, 7 bits each)."""
    odd = sevens ^ (sevens >> splat(4, u32x8))  # bits cross into the neighbour, never into bit 0
    odd = odd ^ (odd >> splat(2, u32x8))
    odd = (odd ^ (odd >> splat(1, u32x8))) & splat(0x01010101, u32x8)
    return sevens | (odd << splat(7, u32x8))


@njit
def spread_sevens(words):
    """Return eight signs per byte from words whose lowest 28 bits are four times seven signs."""
    x = (words & splat(0x3FFF, u32x8)) | ((words & splat(0x0FFFC000, u32x8)) << splat(2, u32x8))
    x = (x & splat(0x007F007F, u32x8)) | ((x & splat(0x3F803F80, u32x8)) << splat(1, u32x8))
    return with_parity(x)


@njit
def sign_words(signs):
    """Return 256 signs (u32x8) as four 64-bit words."""
    words = bitcast(signs, i64x4)
    return lane(words, 0), lane(words, 1), lane(words, 2), lane(words, 3)


@njit
def wide_codes(low, high):
    """Return u16x32 codes from their lower eight bits and what stands above (both u8x32)."""
    return convert(low, u16x32) | (convert(high, u16x32) << splat(8, u16x32))


@njit
def two_bit_neighbours(packed):
    """Return the four 2-bit fields of each of 16 bytes as u8x64, lowest first."""
    x = convert(packed, u32x16)
    x = x | (x << splat(6, u32x16)) | (x << splat(12, u32x16)) | (x << splat(18, u32x16))
    return bitcast(x & splat(0x03030303, u32x16), u8x64)


@njit
def nibbles_of_bytes(packed):
    """Return the nibbles of 16 bytes as u8x32, each byte's low one first."""
    wide = convert(packed, u16x16)
    return bitcast((wide | (wide << splat(4, u16x16))) & splat(0x0F0F, u16x16), u8x32)


_twice = shuffle([i // 2 for i in range(16)])
_nibble = vector_constant(u32x16, [0, 4] * 8)


@njit
def nibble_scales(address):
    """Return 16 numbers 0..15 from 8 bytes, low nibble first, as f32x16."""
    packed = load(address, u8x8)
    wide = convert(_twice(packed, packed), u32x16)
    return convert((wide >> _nibble()) & splat(15, u32x16), f32x16)

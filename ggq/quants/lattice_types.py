"""What block types share whose codes name vectors of a lattice: with signs apart, or with shifts.

A type names its layout and its lattice; it knows no search (ggq.quants.encoders has them).
"""

from abc import abstractmethod

import numpy as np

from ggq.quants.base import ValuesType
from ggq.quants.lattices import LatticeCodes, Search
from ggq.quants.packing import join_blocks, join_planes, split_planes


class LatticeType(ValuesType):
    """A type whose codes name vectors of a lattice."""

    fallback = "IQ4_NL"
    candidate_for = (256,)
    layout: np.dtype

    @abstractmethod
    def find(self, x: np.ndarray, importance: np.ndarray | None) -> LatticeCodes:
        """Return what ggml's search finds for float32 rows; UsageError: importance is needed."""

    @abstractmethod
    def fields(self, found: LatticeCodes) -> dict[str, np.ndarray]:
        """Return the fields of blocks that hold what was found."""

    def quantize(self, x: np.ndarray, importance: np.ndarray | None = None) -> np.ndarray:
        """Return the blocks that ggml's quantize_chunk would write, byte for byte.

        ``importance`` is float32 (n,) for all rows or (rows, n); UsageError: it is needed.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return join_blocks(self.layout, **self.fields(self.find(x, importance)))


class MagnitudesType(LatticeType):
    """A type whose vectors hold magnitudes; signs lie apart, scales have 4 bits."""

    search: Search

    def __init_subclass__(cls) -> None:
        """ggml's encoder refuses to work without importance where there are no plain weights."""
        super().__init_subclass__()
        cls.needs_importance = cls.search.plain is None

    def find(self, x: np.ndarray, importance: np.ndarray | None) -> LatticeCodes:
        from ggq.quants.encoders.magnitudes import search

        return search(self, self.search, x, importance)


class ShiftedType(LatticeType):
    """A type whose vectors hold -1, 0 and 1, shifted by an eighth: down where `signs` are set.

    Groups of ``group`` weights below ``limit`` are zero; ``factor`` is put on the block's scale.
    """

    group: int
    limit: float
    factor: float

    def find(self, x: np.ndarray, importance: np.ndarray | None) -> LatticeCodes:
        from ggq.quants.encoders.shifted import search

        return search(self, x, importance)


def low_bytes(codes: np.ndarray) -> np.ndarray:
    """Return the lowest eight bits of codes."""
    return codes.astype(np.uint8)


def high_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """Return what stands above eight bits in codes, ``bits`` bits each, lowest first."""
    return join_planes((codes >> np.uint16(8)).astype(np.uint8), 1, bits)


def nibbles(scales: np.ndarray) -> np.ndarray:
    """Return bytes of two scales each; inverse of `four_bit_scales`."""
    return join_planes(scales, 1, 4)


def sign_words(found: LatticeCodes) -> np.ndarray:
    """Return uint32 (..., 8): seven signs of each of four vectors, then the scale in 4 bits."""
    sevens = (found.signs & np.uint8(127)).reshape(*found.d.shape, 8, 4).astype(np.uint32)
    words = np.bitwise_or.reduce(sevens << np.arange(0, 28, 7, dtype=np.uint32), axis=-1)
    out: np.ndarray = words | found.scales.astype(np.uint32) << np.uint32(28)
    return out


def signs(packed: np.ndarray) -> np.ndarray:
    """Return bytes (..., m) as float32 factors 1 and -1 (..., m, 8), lowest bit first."""
    bits = split_planes(packed, 1, 1).reshape(*packed.shape, 8)
    found: np.ndarray = np.float32(1) - np.float32(2) * bits
    return found


def four_bit_scales(packed: np.ndarray) -> np.ndarray:
    """Return two scales 0 .. 15 per byte, low nibble first."""
    return split_planes(packed, 1, 4)


def half(fields: np.ndarray) -> np.ndarray:
    """Return the half-precision scale of blocks as float32 (rows, blocks, 1)."""
    return fields["d"].astype(np.float32)[..., None]

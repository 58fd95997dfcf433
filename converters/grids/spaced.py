"""What the grids of evenly spaced codes share: ``w = d * (code - z)``, codes packed in bytes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from ggq.converters.grids.base import Grid
from ggq.quants.base import Grid as Values
from ggq.quants.base import Params
from ggq.quants.packing import join_planes, split_planes

__all__ = ["Spaced"]


@dataclass(frozen=True)
class Shifted(Values):
    """The values ``scale * (code - zero)``: the difference first, as engines compute them."""

    zero: np.ndarray

    def values(self, codes: np.ndarray) -> np.ndarray:
        return self.scale * (codes.astype(np.float32) - self.zero)


class Spaced(Grid):
    """Base of the integer grids; `shift` says where zero lies."""

    @abstractmethod
    def shift(self, params: Params) -> np.ndarray:
        """Return the code of zero of each group, float32 (rows, groups)."""

    def grid(self, params: Params) -> Values:
        d, zero = self.per_weight(params["d"]), self.per_weight(self.shift(params))
        return Shifted(d, d * zero, self.levels, zero)

    def encode(self, x: np.ndarray, params: Params) -> np.ndarray:
        d, zero = self.per_weight(params["d"]), self.per_weight(self.shift(params))
        codes = np.rint(x / np.where(d == 0, np.float32(1), d)) + zero
        return np.clip(np.where(d == 0, zero, codes), 0, self.levels - 1).astype(np.uint8)

    def packed_codes(self, codes: np.ndarray) -> np.ndarray:
        """Return codes as bytes, the first in the lowest bits, uint8 (rows, n * bits / 8)."""
        codes = np.asarray(codes, np.uint8)
        return codes if self.bits == 8 else join_planes(codes, 1, self.bits)

    def unpacked_codes(self, packed: np.ndarray) -> np.ndarray:
        """Return the codes of such bytes, uint8 (rows, n)."""
        packed = np.ascontiguousarray(packed)
        return packed if self.bits == 8 else split_planes(packed, 1, self.bits)

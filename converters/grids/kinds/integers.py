"""Evenly spaced codes around zero: ``w = d * (code - 2**(bits - 1))``, INT4 and INT8.

Symmetric integers of compressed-tensors and GPTQ; what Q4_0 and Q8_0 hold, with groups of 32.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ggq.converters.grids.base import Grid
from ggq.converters.grids.spaced import Spaced
from ggq.quants.base import Params

__all__ = ["GRID"]


class Integers(Spaced):
    """``d``: float32 (rows, groups), of either sign where codes have four bits."""

    CODES: ClassVar = {"INT4": 4, "INT8": 8}
    BLOCKS: ClassVar = {("INT4", 32): "Q4_0", ("INT8", 32): "Q8_0"}

    @property
    def middle(self) -> int:
        """The code of zero."""
        return self.levels // 2

    def fit(self, x: np.ndarray, importance: np.ndarray | None = None) -> Params:
        from ggq.converters.grids.search import symmetric

        return {"d": self.rounded_scales(symmetric(self, x, importance))}

    def zeros(self, params: Params) -> np.ndarray | None:
        return None

    def shift(self, params: Params) -> np.ndarray:
        return np.full_like(params["d"], self.middle)

    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        return np.concatenate([self.packed_codes(codes), self.stored_scales(params["d"])], axis=1)

    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        codes, d, _ = self.split(blocks)
        return {"d": d}, self.unpacked_codes(codes)


GRID: type[Grid] = Integers

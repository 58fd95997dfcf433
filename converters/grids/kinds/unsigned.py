"""Evenly spaced codes from a zero of each group: ``w = d * (code - z)``, UINT4.

Asymmetric integers of compressed-tensors, and AWQ's.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ggq.converters.grids.base import Grid
from ggq.converters.grids.spaced import Spaced
from ggq.quants.base import Params

__all__ = ["GRID"]


class Unsigned(Spaced):
    """``d``: float32, ``z``: uint8, the code of zero; both (rows, groups)."""

    CODES: ClassVar = {"UINT4": 4}
    SYMMETRIC = False
    extra = 1

    def fit(self, x: np.ndarray, importance: np.ndarray | None = None) -> Params:
        from ggq.converters.grids.search import asymmetric

        d, z = asymmetric(self, x, importance)
        return {"d": self.rounded_scales(d), "z": z}

    def zeros(self, params: Params) -> np.ndarray | None:
        return params["z"]

    def shift(self, params: Params) -> np.ndarray:
        return params["z"].astype(np.float32)

    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        z = params["z"] & np.uint8(self.levels - 1)
        parts = [self.packed_codes(codes), self.stored_scales(params["d"]), z]
        return np.concatenate(parts, axis=1)

    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        codes, d, z = self.split(blocks)
        return {"d": d, "z": np.ascontiguousarray(z)}, self.unpacked_codes(codes)


GRID: type[Grid] = Unsigned

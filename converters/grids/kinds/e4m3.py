"""Floats of eight bits (E4M3 without infinities): ``w = d * value``, 253 values up to 448.

Codes number the values from the lowest on, so that neighbours are neighbours; files hold the bytes.
Source: arXiv 2209.05433, as torch.float8_e4m3fn.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ggq.converters.grids.base import Grid
from ggq.quants.base import Grid as Values
from ggq.quants.base import Params
from ggq.quants.tables import TableGrid

__all__ = ["BYTES", "GRID", "TABLE", "TOP", "nearest"]

TOP = np.float32(448)


def _finite() -> tuple[np.ndarray, np.ndarray]:
    """Return all finite values, sorted, and the byte of each; -0 is left out."""
    byte = np.delete(np.arange(256), [0x7F, 0x80, 0xFF])
    exponent, mantissa = (byte >> 3) & 15, (byte & 7) / 8
    size = np.where(exponent == 0, mantissa * 2.0**-6, (1 + mantissa) * 2.0 ** (exponent - 7))
    values = np.where(byte & 128, -size, size).astype(np.float32)
    order = np.argsort(values)
    return values[order], byte[order].astype(np.uint8)


TABLE, BYTES = _finite()
_MIDDLES = (TABLE[1:] + TABLE[:-1]) / np.float32(2)
_CODES = np.full(256, len(TABLE) // 2, np.uint8)
_CODES[BYTES] = np.arange(len(TABLE))


def nearest(x: np.ndarray) -> np.ndarray:
    """Return the values nearest to ``x``."""
    return TABLE[np.searchsorted(_MIDDLES, x, "right")]


class E4M3(Grid):
    """``d``: float32 (rows, groups), positive."""

    CODES: ClassVar = {"E4M3": 8}
    FLOATS = True
    heeds_importance = False

    def __init__(self, codes: str, group: int, scales: str) -> None:
        super().__init__(codes, group, scales)
        self.levels = len(TABLE)

    def fit(self, x: np.ndarray, importance: np.ndarray | None = None) -> Params:
        """Return the scales under which the largest magnitude of a group is the largest value.

        Floats lie alike in every octave: a search gains nothing, and importance changes nothing.
        """
        peak = np.abs(x).reshape(len(x), -1, self.group).max(-1)
        return {"d": self.rounded_scales(peak / TOP)}

    def encode(self, x: np.ndarray, params: Params) -> np.ndarray:
        from ggq.converters.grids.search import places

        return places(x, params["d"], _MIDDLES)

    def grid(self, params: Params) -> Values:
        d = self.per_weight(params["d"])
        return TableGrid(d, np.zeros_like(d), self.levels, TABLE)

    def decode(self, params: Params, codes: np.ndarray) -> np.ndarray:
        return self.per_weight(params["d"]) * TABLE[codes]

    def pack(self, params: Params, codes: np.ndarray) -> np.ndarray:
        return np.concatenate([BYTES[codes], self.stored_scales(params["d"])], axis=1)

    def unpack(self, blocks: np.ndarray) -> tuple[Params, np.ndarray]:
        codes, d, _ = self.split(blocks)
        return {"d": d}, _CODES[codes]

    def zeros(self, params: Params) -> np.ndarray | None:
        return None


GRID: type[Grid] = E4M3

"""Types whose codes name entries of a table of values that are not evenly spaced."""

from dataclasses import dataclass

import numpy as np

from ggq.quants.base import Grid, Params
from ggq.quants.packing import look_up
from ggq.quants.searched import SearchedType, per_weight

# kvalues_iq4nl of ggml, and twice the values of E2M1 (OCP microscaling formats).
CURVE = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32
)
E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)


@dataclass(frozen=True)
class TableGrid(Grid):
    """The values ``scale * table[code]``; ``offset`` is zero."""

    table: np.ndarray

    def nearest(self, x: np.ndarray) -> np.ndarray:
        order = np.argsort(self.table, kind="stable")
        sorted_table = self.table[order]
        middles = (sorted_table[1:] + sorted_table[:-1]) / np.float32(2)
        safe = np.where(self.scale == 0, np.float32(1), self.scale)
        return order[np.searchsorted(middles, x / safe, "right")].astype(np.uint8)

    def values(self, codes: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.scale * look_up(self.table, codes)
        return found


class TableType(SearchedType):
    """A block type with one scale per group and a float32 ``table`` of 16 values."""

    levels, keeps_codes = 16, True
    table: np.ndarray

    @np.errstate(all="ignore")
    def encode(self, x: np.ndarray, params: Params) -> np.ndarray:
        kept = params.get("codes")
        return self.grid(params).nearest(x) if kept is None else kept

    def grid(self, params: Params) -> Grid:
        scale = per_weight(self.scales(params)[0], self.group)
        return TableGrid(scale, np.zeros_like(scale), self.levels, self.table)

    @np.errstate(all="ignore")
    def decode(self, params: Params, codes: np.ndarray) -> np.ndarray:
        """Return float32 (rows, n) values, rounded as ggml's dequantize_row rounds them."""
        return self.grid(params).values(codes)

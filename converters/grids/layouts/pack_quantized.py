"""compressed-tensors' ``pack-quantized``: codes in 32-bit words along a row, floats as activations.

``weight_packed`` I32 (rows, n * bits / 32), the first code in the lowest bits; ``weight_scale``
(rows, groups); ``weight_shape`` I64; of asymmetric types ``weight_zero_point`` I32
(rows * bits / 32, groups), packed along the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ggq.converters.grids import compressed
from ggq.converters.grids.base import Arrays, Grid, Layout, ServingType, Shapes, Weight
from ggq.converters.grids.words import words

__all__ = ["TYPES"]


class PackQuantized:
    def shapes(self, grid: Grid, rows: int, n: int, static: bool) -> Shapes:
        found: Shapes = {".weight_packed": ("I32", (rows, n * grid.bits // 32))}
        found |= compressed.scale_shapes(grid, rows, n, static)
        if grid.extra:
            found[".weight_zero_point"] = ("I32", (-(-rows * grid.bits // 32), n // grid.group))
        return found | {".weight_shape": ("I64", (2,))}

    def tensors(self, weight: Weight) -> Arrays:
        bits = weight.grid.bits
        made: Arrays = {".weight_packed": words(weight.codes, bits)} | compressed.scales(weight)
        if weight.zeros is not None:
            made[".weight_zero_point"] = words(weight.zeros.T, bits).T
        return made | {".weight_shape": np.array(weight.codes.shape, "<i8")}

    def config(self, chosen: ServingType, group: int, left: Sequence[str]) -> dict[str, Any]:
        return compressed.config(chosen, group, left, "pack-quantized")

    def problem(self, rows: int, n: int) -> str | None:
        return None if n % 32 == 0 else f"rows of {n} are no multiple of 32"


LAYOUT: Layout = PackQuantized()
TYPES = (
    ServingType("W4A16", "INT4", LAYOUT, "weights of 4 bits"),
    ServingType("W4A16_ASYM", "UINT4", LAYOUT, "weights of 4 bits with zero points"),
    ServingType("W8A16", "INT8", LAYOUT, "weights of 8 bits"),
)

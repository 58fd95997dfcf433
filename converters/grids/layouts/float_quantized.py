"""compressed-tensors' ``float-quantized``: E4M3 with a scale for each row, activations per token.

``weight`` F8_E4M3 (rows, n), ``weight_scale`` (rows, 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ggq.converters.grids import compressed
from ggq.converters.grids.base import Arrays, Grid, Inputs, Layout, ServingType, Shapes, Weight
from ggq.converters.grids.kinds.e4m3 import BYTES, TOP

__all__ = ["TYPES"]


class FloatQuantized:
    def shapes(self, grid: Grid, rows: int, n: int, static: bool) -> Shapes:
        scales = compressed.scale_shapes(grid, rows, n, static)
        return {".weight": ("F8_E4M3", (rows, n)), **scales}

    def tensors(self, weight: Weight) -> Arrays:
        return {".weight": BYTES[weight.codes], **compressed.scales(weight)}

    def config(self, chosen: ServingType, group: int, left: Sequence[str]) -> dict[str, Any]:
        return compressed.config(chosen, group, left, "float-quantized")

    def problem(self, rows: int, n: int) -> str | None:
        return None


LAYOUT: Layout = FloatQuantized()
INPUTS = Inputs("token", float(TOP), floats=True)
TYPES = (ServingType("FP8", "E4M3", LAYOUT, "weights and activations in E4M3", False, INPUTS),)

"""compressed-tensors' ``int-quantized``: bytes with a scale for each row, activations in 8 bits.

``weight`` I8 (rows, n), ``weight_scale`` (rows, 1); of the static type ``input_scale`` (1,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ggq.converters.grids import compressed
from ggq.converters.grids.base import Arrays, Grid, Inputs, Layout, ServingType, Shapes, Weight

__all__ = ["TYPES"]


class IntQuantized:
    def shapes(self, grid: Grid, rows: int, n: int, static: bool) -> Shapes:
        return {".weight": ("I8", (rows, n)), **compressed.scale_shapes(grid, rows, n, static)}

    def tensors(self, weight: Weight) -> Arrays:
        signed = (weight.codes ^ np.uint8(128)).view(np.int8)
        return {".weight": signed, **compressed.scales(weight)}

    def config(self, chosen: ServingType, group: int, left: Sequence[str]) -> dict[str, Any]:
        return compressed.config(chosen, group, left, "int-quantized")

    def problem(self, rows: int, n: int) -> str | None:
        return None


LAYOUT: Layout = IntQuantized()
TYPES = (
    ServingType(
        "W8A8", "INT8", LAYOUT, "weights and activations of 8 bits", False, Inputs("token")
    ),
    ServingType(
        *("W8A8_STATIC", "INT8", LAYOUT, "the same, the activations' scales stored"),
        *(False, Inputs("tensor")),
    ),
)

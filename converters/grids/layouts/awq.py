"""AWQ's layout (gemm): codes and zeros of 4 bits, eight outputs in a word, out of order.

``qweight`` I32 (n, rows / 8), ``qzeros`` I32 (groups, rows / 8), ``scales`` F16 (groups, rows);
the nibbles of a word are the outputs 0 2 4 6 1 3 5 7. Source: AutoAWQ's WQLinear_GEMM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ggq.converters.grids.base import Arrays, Grid, Layout, ServingType, Shapes, Weight, stored
from ggq.converters.grids.words import words

__all__ = ["TYPES"]

ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


class AWQ:
    def shapes(self, grid: Grid, rows: int, n: int, static: bool) -> Shapes:
        groups = n // grid.group
        return {
            ".qweight": ("I32", (n, rows // 8)),
            ".qzeros": ("I32", (groups, rows // 8)),
            ".scales": (grid.scales, (groups, rows)),
        }

    def tensors(self, weight: Weight) -> Arrays:
        assert weight.zeros is not None, "AWQ's grid has zeros"
        return {
            ".qweight": _outputs(weight.codes),
            ".qzeros": _outputs(weight.zeros),
            ".scales": stored(np.ascontiguousarray(weight.scales.T), weight.grid.scales),
        }

    def config(self, chosen: ServingType, group: int, left: Sequence[str]) -> dict[str, Any]:
        return {
            "quant_method": "awq",
            "bits": chosen.bits,
            "group_size": group,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": [n for n in left if n != "lm_head"] or None,
        }

    def problem(self, rows: int, n: int) -> str | None:
        return None if rows % 8 == 0 else f"{rows} rows are no multiple of 8"


def _outputs(codes: np.ndarray) -> np.ndarray:
    """Return codes (rows, m) as words along the rows, int32 (m, rows / 8)."""
    turned = codes.T.reshape(codes.shape[1], -1, 8)[..., ORDER]
    return words(turned.reshape(codes.shape[1], -1), 4)


LAYOUT: Layout = AWQ()
TYPES = (
    ServingType("AWQ", "UINT4", LAYOUT, "weights of 4 bits as AWQ's tools store them", dtype="F16"),
)

"""GPTQ's layout (checkpoint_format gptq): codes packed along the inputs, all zeros the middle code.

``qweight`` I32 (n * bits / 32, rows), ``qzeros`` I32 (groups, rows * bits / 32) less one,
``scales`` F16 (groups, rows), ``g_idx`` I32 (n,): groups lie in order, whatever order the pass
chose codes in. Source: AutoGPTQ's QuantLinear.pack.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ggq.converters.grids.base import Arrays, Grid, Layout, ServingType, Shapes, Weight, stored
from ggq.converters.grids.words import words

__all__ = ["TYPES"]


class GPTQ:
    def shapes(self, grid: Grid, rows: int, n: int, static: bool) -> Shapes:
        groups = n // grid.group
        return {
            ".qweight": ("I32", (n * grid.bits // 32, rows)),
            ".qzeros": ("I32", (groups, rows * grid.bits // 32)),
            ".scales": (grid.scales, (groups, rows)),
            ".g_idx": ("I32", (n,)),
        }

    def tensors(self, weight: Weight) -> Arrays:
        grid, (rows, n) = weight.grid, weight.codes.shape
        zeros = np.full((n // grid.group, rows), grid.levels // 2 - 1, np.uint8)
        return {
            ".qweight": words(weight.codes, grid.bits).T,
            ".qzeros": words(zeros, grid.bits),
            ".scales": stored(np.ascontiguousarray(weight.scales.T), grid.scales),
            ".g_idx": (np.arange(n) // grid.group).astype("<i4"),
        }

    def config(self, chosen: ServingType, group: int, left: Sequence[str]) -> dict[str, Any]:
        told = {
            "quant_method": "gptq",
            "bits": chosen.bits,
            "group_size": group,
            "sym": True,
            "desc_act": False,
            "checkpoint_format": "gptq",
            "lm_head": False,
        }
        inner = [name for name in left if name != "lm_head"]
        # GPTQModel's rules by module; engines that read none have no other place for exceptions.
        return told | ({"dynamic": {f"-:^{re.escape(n)}$": {} for n in inner}} if inner else {})

    def problem(self, rows: int, n: int) -> str | None:
        if n % 32:
            return f"rows of {n} are no multiple of 32"
        return None if rows % 8 == 0 else f"{rows} rows are no multiple of 8"


LAYOUT: Layout = GPTQ()
TYPES = (
    ServingType(
        "GPTQ", "INT4", LAYOUT, "weights of 4 bits as GPTQ's tools store them", dtype="F16"
    ),
)

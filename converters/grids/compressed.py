"""What the layouts of compressed-tensors share: config.json's settings and the scales beside codes.

Format: github.com/vllm-project/compressed-tensors (0.20), as its QuantizationConfig reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ggq.converters.grids.base import Arrays, Grid, Inputs, ServingType, Shapes, Weight, stored

__all__ = ["config", "scale_shapes", "scales"]


def config(chosen: ServingType, group: int, left: Sequence[str], layout: str) -> dict[str, Any]:
    """Return ``quantization_config``; ``group`` 0: a scale for each row."""
    numbers = {"num_bits": chosen.bits, "type": "float" if chosen.kind.FLOATS else "int"}
    weights: dict[str, Any] = {**numbers, "symmetric": chosen.kind.SYMMETRIC, "dynamic": False}
    weights["strategy"] = "group" if group else "channel"
    weights["group_size"] = group or None
    groups = {"targets": ["Linear"], "weights": weights, "output_activations": None}
    groups["input_activations"] = _inputs(chosen.inputs)
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "config_groups": {"group_0": {**groups, "format": layout}},
        "ignore": list(left),
        "kv_cache_scheme": None,
    }


def _inputs(inputs: Inputs) -> dict[str, Any] | None:
    if inputs.scope == "none":
        return None
    kind = "float" if inputs.floats else "int"
    told = {"num_bits": 8, "type": kind, "symmetric": True, "group_size": None}
    return {**told, "strategy": inputs.scope, "dynamic": inputs.scope == "token"}


def scale_shapes(grid: Grid, rows: int, n: int, static: bool) -> Shapes:
    """Return the declared scales: of the weight's groups and, where static, of its inputs."""
    found: Shapes = {".weight_scale": (grid.scales, (rows, n // grid.group))}
    return found | ({".input_scale": (grid.scales, (1,))} if static else {})


def scales(weight: Weight) -> Arrays:
    """Return the scales as they are stored."""
    dtype = weight.grid.scales
    found = {".weight_scale": stored(weight.scales, dtype)}
    if weight.input_scale is not None:
        found[".input_scale"] = stored(np.array([weight.input_scale], np.float32), dtype)
    return found

"""Checkpoints of NVIDIA's Model Optimizer: FP8 and NVFP4 with a second scale for the whole weight.

Layout: the unified Hugging Face export of github.com/NVIDIA/Model-Optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ggq.converters.formats.base import Decoded, Pieces, expect_shape, whole
from ggq.converters.formats.floats import FP8, SCALES, Fours, eights
from ggq.errors import FormatError, ModelError, printable

__all__ = ["FORMAT"]

ALGORITHMS = ("FP8", "NVFP4", "MIXED_PRECISION")  # the last: one of the two by module
OF_ACTIVATIONS = ("input_scale", "output_scale", "k_scale", "v_scale")


class ModelOpt:
    """Modules of ``weight`` and ``weight_scale``; NVFP4 has ``weight_scale_2`` too."""

    methods = ("modelopt", "modelopt_fp4")
    beside = "hf_quant_config.json"

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse an algorithm that is not read; ModelError."""
        inner = settings.get("quantization")  # hf_quant_config.json has it one level down
        where = inner if isinstance(inner, Mapping) else settings
        algorithm = where.get("quant_algo")
        if algorithm is not None and algorithm not in ALGORITHMS:
            raise ModelError(
                f"ModelOpt quant_algo {printable(repr(algorithm))} is not supported, only "
                f"{', '.join(ALGORITHMS)}"
            )

    def decode(self, pieces: Pieces, settings: Mapping[str, Any]) -> None:
        for name in pieces.tensors:
            if name.endswith(".pre_quant_scale"):
                raise FormatError(f"tensor {printable(name)} scales inputs, which is not supported")
        pieces.drop(*OF_ACTIVATIONS)
        for module in pieces.modules(".weight_scale"):
            pieces.put(_module(pieces, module))


def _module(pieces: Pieces, module: str) -> Decoded:
    name = f"{module}.weight"
    scales = pieces.take(f"{module}.weight_scale", *SCALES, of=name)
    stored = pieces.take(name, "U8", *FP8, of=scales.name)
    if stored.dtype in FP8:
        return eights(name, stored, scales, (128, 128) if len(scales.shape) == 2 else None)
    if len(stored.shape) != 2 or not all(stored.shape):
        raise FormatError(f"tensor {printable(name)} has shape {stored.shape}, no matrix")
    second = pieces.take(f"{module}.weight_scale_2", "F32", of=name)
    expect_shape(second, (), (1,))
    factor: np.float32 = whole(second)[0]
    return Fours(name, stored, scales, lambda x: x * factor)


FORMAT = ModelOpt()

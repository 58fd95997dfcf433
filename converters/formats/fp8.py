"""FP8 checkpoints: floats of 8 bits under scales per block, per row or for the whole weight.

Layout: DeepSeek's and Qwen's ``weight_scale_inv`` (which is multiplied, whatever its name says),
AutoFP8's ``weight_scale``, FBGEMM's scales per row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.converters.formats.base import Pieces
from ggq.converters.formats.floats import FP8, SCALES, block_size, eights

__all__ = ["FORMAT"]

OF_ACTIVATIONS = ("activation_scale", "input_scale", "input_scale_ub", "k_scale", "v_scale")


class Fp8:
    """Modules of ``weight`` E4M3 or E5M2 and ``weight_scale_inv`` or ``weight_scale``."""

    methods = ("fp8", "fbgemm_fp8")
    beside = None

    def decode(self, pieces: Pieces, settings: Mapping[str, Any]) -> None:
        block = block_size(settings.get("weight_block_size"), "weight_block_size")
        pieces.drop(*OF_ACTIVATIONS)
        for module in pieces.modules(".weight"):
            name = f"{module}.weight"
            if pieces.tensors[name].dtype in FP8:
                stored = pieces.take(name, of=name)
                found = pieces.find(f"{module}.weight_scale", *SCALES)
                scales = found or pieces.take(f"{module}.weight_scale_inv", *SCALES, of=name)
                pieces.put(eights(name, stored, scales, block))


FORMAT = Fp8()

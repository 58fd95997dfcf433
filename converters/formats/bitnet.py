"""BitNet checkpoints: weights -1, 0 and 1, four rows in a byte, and one scale for each weight.

Layout: transformers' BitLinear, which divides by the scale, and AutoBitLinear, which multiplies.
Byte row p of n holds rows p, n + p, 2n + p and 3n + p, each plus 1, from the lowest bits on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ggq.converters.formats.base import Decoded, Pieces, Rows, expect_shape, numbers
from ggq.converters.formats.floats import SCALES
from ggq.errors import FormatError, ModelError, printable

__all__ = ["FORMAT"]

PER_BYTE = 4
TERNARY = ("TQ1_0", "TQ2_0")
MULTIPLIED = {"bitlinear": False, "autobitlinear": True}  # by linear_class


class _Ternary(Decoded):
    def __init__(self, name: str, stored: Any, scale: np.float32) -> None:
        n, columns = stored.shape
        super().__init__(name, (PER_BYTE * n, columns))
        self.stored, self.scale = stored, scale

    def values(self, rows: Rows) -> np.ndarray:
        place, row = np.divmod(numbers(rows, self.shape[0]), self.stored.shape[0])
        codes = self.stored.stored()[row] >> (2 * place[:, None]).astype(np.uint8) & 3
        return (codes.astype(np.float32) - 1) * self.scale

    def fits(self, type_name: str) -> bool:
        from ggq import quants

        return type_name in TERNARY and self.shape[1] % quants.get(type_name).block_size == 0

    def rounds(self, type_name: str) -> bool:
        return bool(np.float32(np.float16(self.scale)) != self.scale)

    def blocks(self, type_name: str, rows: Rows) -> np.ndarray:
        from ggq import quants

        return quants.get(type_name).quantize(self.values(rows))


class BitNet:
    """Modules of ``weight`` U8 and ``weight_scale`` of one number."""

    methods = ("bitnet",)
    beside = None

    def check(self, settings: Mapping[str, Any]) -> None:
        """Refuse weights that are to be made ternary at each use, and norms inside the layers."""
        if settings.get("quantization_mode") == "online":
            what = "config.json: quantization_config.quantization_mode is 'online'"
            raise ModelError(f"{what}: convert the packed checkpoint, whose mode is 'offline'")
        if settings.get("use_rms_norm"):
            raise ModelError("config.json: quantization_config.use_rms_norm is not supported")
        kind = settings.get("linear_class") or "bitlinear"
        if kind not in MULTIPLIED:
            known = " or ".join(MULTIPLIED)
            what = f"quantization_config.linear_class is {printable(repr(kind), 40)}"
            raise ModelError(f"config.json: {what}, {known} is read")

    def decode(self, pieces: Pieces, settings: Mapping[str, Any]) -> None:
        multiplied = MULTIPLIED[settings.get("linear_class") or "bitlinear"]
        for module in pieces.modules(".weight_scale"):
            name = f"{module}.weight"
            stored = pieces.take(name, "U8", of=name)
            scale = pieces.take(f"{module}.weight_scale", *SCALES, of=name)
            expect_shape(scale, (1,), ())
            value = np.float32(scale.read(slice(0, 1)).ravel()[0])
            if len(stored.shape) != 2 or not value or not np.isfinite(value):
                raise FormatError(f"tensor {printable(name)}: scale {value} or no matrix")
            pieces.put(_Ternary(name, stored, value if multiplied else np.float32(1) / value))


FORMAT = BitNet()

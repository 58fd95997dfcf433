"""AWQ checkpoints of the gemm layout: codes and zeros of 4 bits packed along the outputs.

Layout: AutoAWQ's WQLinear_GEMM; eight outputs share a word, in the order 0 2 4 6 1 3 5 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ggq.converters.formats.base import Pieces, Rows, expect_shape, numbers
from ggq.converters.formats.integers import Coded, Integers
from ggq.errors import FormatError, ModelError, printable

__all__ = ["FORMAT"]

BITS, PER_WORD = 4, 8
SHIFTS = np.array([0, 16, 4, 20, 8, 24, 12, 28], np.uint32)  # where the n-th of eight outputs lies


class AWQ:
    """Modules of ``qweight`` int32 (inputs, outputs / 8), ``qzeros`` (groups, outputs / 8) and
    ``scales`` (groups, outputs)."""

    methods = ("awq",)
    beside = "quant_config.json"

    def decode(self, pieces: Pieces, settings: Mapping[str, Any]) -> None:
        told = (settings.get(key) for key in ("version", "format", "checkpoint_format"))
        layout = next((str(name).lower() for name in told if name), "gemm")
        bits = settings.get("bits") or settings.get("w_bit") or BITS
        if layout != "gemm" or bits != BITS:
            raise ModelError(
                f"config.json: AWQ {printable(layout)} with {printable(repr(bits))} bits is not "
                "supported, only gemm with 4"
            )
        for module in pieces.modules(".qweight"):
            pieces.put(_module(pieces, module))


def _module(pieces: Pieces, module: str) -> Integers:
    name = f"{module}.qweight"
    packed = pieces.take(name, "I32", of=name)
    scales = pieces.take(f"{module}.scales", "F16", "BF16", "F32", of=name)
    qzeros = pieces.take(f"{module}.qzeros", "I32", of=name)
    if len(packed.shape) != 2 or len(scales.shape) != 2 or not all(packed.shape + scales.shape):
        raise FormatError(f"tensor {printable(name)} or its scales are no matrix")
    inputs, outputs = packed.shape[0], packed.shape[1] * PER_WORD
    groups = scales.shape[0]
    expect_shape(scales, (groups, outputs))
    expect_shape(qzeros, (groups, outputs // PER_WORD))
    if inputs % groups:
        raise FormatError(
            f"tensor {printable(name)} has {inputs} inputs, no multiple of its {groups} groups"
        )
    coded = Coded(
        BITS,
        inputs // groups,
        lambda rows: _nibbles(packed, rows, outputs),
        lambda rows: scales.read((slice(None), rows)).T,
        lambda rows: _nibbles(qzeros, rows, outputs).astype(np.float32),
        half=scales.dtype == "F16",
    )
    return Integers(f"{module}.weight", (outputs, inputs), coded)


def _nibbles(packed: Any, rows: Rows, outputs: int) -> np.ndarray:
    """Return the codes of those outputs, uint8 (rows, inputs or groups)."""
    word, within = np.divmod(numbers(rows, outputs), PER_WORD)
    words = packed.stored().view(np.uint32)[:, word]
    words >>= SHIFTS[within]
    return np.ascontiguousarray(words.astype(np.uint8).T) & np.uint8(15)


FORMAT = AWQ()

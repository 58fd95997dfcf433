"""MXFP4 checkpoints of gpt-oss: experts as ``_blocks`` of 16 bytes and ``_scales`` beside them.

Their pieces hold gate and up in turns, which the architecture's table takes apart
(`checkpoint/fused.py`); here it is made sure that each has its other half and their shapes
agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.converters.formats.base import Pieces, expect_shape
from ggq.errors import FormatError, printable

__all__ = ["FORMAT"]


class MXFP4:
    """Tensors ``x_blocks`` uint8 (..., n, 16) and ``x_scales`` uint8 (..., n)."""

    methods = ("mxfp4",)
    beside = None

    def decode(self, pieces: Pieces, settings: Mapping[str, Any]) -> None:
        for name in list(pieces.modules("_blocks")):
            blocks = pieces.take(f"{name}_blocks", "U8", of=name)
            scales = pieces.take(f"{name}_scales", "U8", "F8_E8M0", of=blocks.name)
            if len(blocks.shape) < 2 or blocks.shape[-1] != 16:
                raise FormatError(
                    f"tensor {printable(blocks.name)} has shape {blocks.shape}, not blocks of 16"
                )
            expect_shape(scales, blocks.shape[:-1])
            pieces.tensors |= {blocks.name: blocks, scales.name: scales}


FORMAT = MXFP4()

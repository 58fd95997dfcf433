"""Checkpoints whose weights are blocks already, as quantization-aware training exports them.

``module.weight_blocks`` uint8 (rows, row bytes) stands for ``module.weight``; config.json names the
block type of each. Converted to the same types the blocks are written as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ggq.converters.formats.base import Decoded, Pieces, Rows
from ggq.errors import FormatError, GGQError, printable

__all__ = ["FORMAT", "METHOD", "SUFFIX"]

METHOD, SUFFIX = "ggq", "_blocks"


class Blocks(Decoded):
    """Rows of blocks of one type."""

    def __init__(self, name: str, stored: Any, kind: Any):
        blocks = stored.shape[1] // kind.block_bytes
        super().__init__(name, (stored.shape[0], blocks * kind.block_size))
        self.dtype, self._kind, self._stored = kind.name, kind, stored

    def values(self, rows: Rows) -> np.ndarray:
        return self._kind.dequantize(self._rows(rows))

    def _rows(self, rows: Rows) -> np.ndarray:
        return np.ascontiguousarray(self._stored.stored()[rows])

    def fits(self, type_name: str) -> bool:
        return type_name == self._kind.name

    def blocks(self, type_name: str, rows: Rows) -> np.ndarray:
        assert self.fits(type_name)
        return self._rows(rows)


class GGQ:
    """``types`` of quantization_config: weight -> name of its block type."""

    methods = (METHOD,)
    beside = None

    def decode(self, pieces: Pieces, settings: Mapping[str, Any]) -> None:
        types = settings.get("types")
        if not isinstance(types, Mapping):
            raise FormatError("config.json: quantization_config.types is not an object")
        for name in list(pieces.modules(SUFFIX)):
            stored = pieces.take(f"{name}{SUFFIX}", "U8", of=name)
            pieces.put(Blocks(name, stored, _kind(name, types.get(name), stored)))


def _kind(name: str, wanted: object, stored: Any) -> Any:
    """Return the block type of a weight; FormatError where its rows cannot be such blocks."""
    from ggq import quants

    try:
        kind = quants.get(str(wanted))
    except GGQError:
        raise FormatError(
            f"config.json: quantization_config gives {printable(name)} no block type"
        ) from None
    if len(stored.shape) != 2 or not all(stored.shape) or stored.shape[1] % kind.block_bytes:
        raise FormatError(
            f"tensor {printable(stored.name)} of shape {stored.shape} is no {kind.name}"
        )
    return kind


FORMAT = GGQ()

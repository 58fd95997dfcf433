"""Checkpoints of bitsandbytes: LLM.int8 with a scale per row, and 4 bits by a table (NF4, FP4).

Layouts: QuantState.as_dict and Linear8bitLt of github.com/bitsandbytes-foundation/bitsandbytes.
All columns of LLM.int8 are stored, outliers too: it sets these apart only while it multiplies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import gcd
from typing import Any

import numpy as np

from ggq.converters.formats.base import Pieces, Rows, expect_shape, numbers, whole
from ggq.converters.formats.floats import ScaledFloats
from ggq.converters.formats.integers import Coded, Integers
from ggq.errors import FormatError, ModelError, printable

__all__ = ["FORMAT"]

STATE = ".weight.quant_state.bitsandbytes__"
MAX_STATE = 100_000  # bytes of JSON
MAX_BLOCK = 1 << 20


class BitsAndBytes:
    """Modules of ``weight`` int8 and ``SCB``, or of ``weight`` in nibbles and ``weight.absmax``."""

    methods = ("bitsandbytes",)
    beside = None

    def decode(self, pieces: Pieces, settings: Mapping[str, Any]) -> None:
        for module in pieces.modules(".SCB"):
            pieces.put(_int8(pieces, module))
        for kind in ("nf4", "fp4"):
            for module in pieces.modules(STATE + kind):
                pieces.put(_four_bits(pieces, module, kind))


def _int8(pieces: Pieces, module: str) -> Integers:
    name = f"{module}.weight"
    largest = pieces.take(f"{module}.SCB", "F32", "F16", "BF16", of=name)
    stored = pieces.take(name, "I8", of=largest.name)
    layout = pieces.find(f"{module}.weight_format", "U8", "I8", "I32", "I64")
    if layout is not None and np.count_nonzero(layout.stored()):
        raise ModelError(f"tensor {printable(layout.name)} is not 0: only rows in order are read")
    if len(stored.shape) != 2 or not all(stored.shape):
        raise FormatError(f"tensor {printable(name)} has shape {stored.shape}, no matrix")
    rows, columns = stored.shape
    expect_shape(largest, (rows,), (rows, 1), (1, rows))

    def codes(chosen: Rows) -> np.ndarray:
        return stored.stored()[chosen].view(np.uint8) ^ np.uint8(128)

    def scales(chosen: Rows) -> np.ndarray:
        return largest.read(slice(None)).reshape(-1, 1)[chosen] / np.float32(127)

    return Integers(name, stored.shape, Coded(8, columns, codes, scales, 128))


def _four_bits(pieces: Pieces, module: str, kind: str) -> ScaledFloats:
    name = f"{module}.weight"
    state = _state(pieces.take(module + STATE + kind, "U8", of=name))
    stored = pieces.take(name, "U8", "I8", "F16", "BF16", "F32", of=module + STATE + kind)
    values = pieces.take(f"{name}.quant_map", "F32", of=name)
    expect_shape(values, (16,))
    rows, columns = _shape(state, name)
    block = _number(state, "blocksize", name)
    absmax = _absmax(pieces, name, state, -(-rows * columns // block))
    if whole(stored).nbytes * 2 != rows * columns or columns % 2:
        raise FormatError(
            f"tensor {printable(name)} of shape {stored.shape} does not hold {(rows, columns)} "
            "in 4 bits"
        )
    group = gcd(columns, block)  # so many columns never cross a block, whatever the row

    def elements(chosen: Rows) -> np.ndarray:
        packed = whole(stored).view(np.uint8).reshape(rows, columns // 2)[chosen]
        codes = np.stack((packed >> 4, packed & np.uint8(15)), -1).reshape(len(packed), columns)
        return whole(values)[codes]

    def scales(chosen: Rows) -> np.ndarray:
        first = numbers(chosen, rows)[:, None] * columns + np.arange(0, columns, group)
        return absmax(first // block)

    return ScaledFloats(name, (rows, columns), elements, scales, group)


def _absmax(pieces: Pieces, name: str, state: Mapping[str, Any], count: int) -> Any:
    """Return what reads the scales of blocks by number: floats, or bytes quantized once more."""
    stored = pieces.take(f"{name}.absmax", "F32", "U8", of=name)
    expect_shape(stored, (count,))
    if stored.dtype == "F32":
        return lambda index: whole(stored)[index]
    values = pieces.take(f"{name}.nested_quant_map", "F32", of=name)
    scales = pieces.take(f"{name}.nested_absmax", "F32", of=name)
    size, offset = _number(state, "nested_blocksize", name), state.get("nested_offset")
    expect_shape(values, (256,))
    expect_shape(scales, (-(-count // size),))
    if not isinstance(offset, int | float):
        raise FormatError(f"tensor {printable(name)}: its quant_state has no nested_offset")

    def read(index: np.ndarray) -> np.ndarray:
        found = whole(values)[whole(stored)[index]] * whole(scales)[index // size]
        return found + np.float32(offset)

    return read


def _state(tensor: Any) -> Mapping[str, Any]:
    """Return the JSON object that a tensor of bytes holds."""
    text = whole(tensor)[: MAX_STATE + 1].tobytes()
    try:
        found = json.loads(text) if len(text) <= MAX_STATE else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FormatError(f"tensor {printable(tensor.name)} holds no JSON object")
    return found


def _shape(state: Mapping[str, Any], name: str) -> tuple[int, int]:
    shape = state.get("shape")
    if not isinstance(shape, list) or len(shape) != 2 or not all(_counts(n) for n in shape):
        raise FormatError(
            f"tensor {printable(name)}: its quant_state says shape {printable(repr(shape))}"
        )
    return shape[0], shape[1]


def _number(state: Mapping[str, Any], key: str, name: str) -> int:
    value = state.get(key)
    if value is None or not _counts(value) or value > MAX_BLOCK:
        raise FormatError(
            f"tensor {printable(name)}: its quant_state says {key} {printable(repr(value))}"
        )
    return int(value)


def _counts(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 31


FORMAT = BitsAndBytes()

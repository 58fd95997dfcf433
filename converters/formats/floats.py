"""Weights as small floats (8 or 4 bits) under scales per rectangle of rows and columns.

It knows how the elements and the scales are coded, not which format stores them where.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import numpy as np

from ggq.converters.formats.base import Decoded, Rows, numbers
from ggq.converters.formats.integers import unpack
from ggq.converters.safetensors import FLOATS
from ggq.errors import FormatError, printable

__all__ = [
    "FP8",
    "SCALES",
    "Eights",
    "Fours",
    "ScaledFloats",
    "block_size",
    "eights",
    "grid",
    "scale_values",
    "scaled_block",
]

FP8 = ("F8_E4M3", "F8_E5M2")
SCALES = (*FLOATS, "F8_E4M3", "F8_E8M0", "U8")  # U8 as well holds powers of two

RowValues = Callable[[Rows], np.ndarray]


@cache
def table(dtype: str) -> np.ndarray:
    """Return the float32 value of each byte: E4M3 without infinities, E5M2, E8M0 (OCP formats)."""
    byte = np.arange(256)
    if dtype == "F8_E5M2":
        return (byte.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    if dtype != "F8_E4M3":
        values = np.exp2(np.minimum(byte, 254) - 127.0).astype(np.float32)
        values[255] = np.nan
        return values
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    values = np.where(
        exponent == 0, mantissa * 2.0**-9, (1 + mantissa / 8) * np.exp2(exponent - 7.0)
    )
    values[mantissa + 8 * exponent == 0x7F] = np.nan
    return np.where(byte >> 7, -values, values).astype(np.float32)


def bytes_of(tensor: Any, rows: Rows | tuple[Rows, Rows]) -> np.ndarray:
    """Return rows of a tensor of bytes as they are stored."""
    return tensor.stored()[rows]


def scale_values(tensor: Any) -> RowValues:
    """Return what reads rows of a tensor of scales as float32."""
    if tensor.dtype in FLOATS:
        return tensor.read
    values = table(tensor.dtype)
    return lambda rows: values[bytes_of(tensor, rows)]


def grid(scales: Any, shape: tuple[int, int], block: tuple[int, int]) -> RowValues:
    """Return what reads the scales of rows, float32 (rows, column blocks).

    ``block``: rows and columns under one scale; FormatError where the shape does not agree.
    """
    down, across = (-(-n // b) for n, b in zip(shape, block, strict=True))
    flat = len(scales.shape) < 2 and (across == 1 or down == 1)
    if scales.shape != (down, across) and not (flat and prod(scales.shape) == down * across):
        raise FormatError(
            f"tensor {printable(scales.name)} has shape {scales.shape}, a weight of {shape} in "
            f"blocks of {block} needs {(down, across)}"
        )
    read = scale_values(scales)
    if flat:
        return lambda rows: read(slice(None)).reshape(down, across)[
            numbers(rows, shape[0]) // block[0]
        ]
    if block[0] == 1:
        return read
    return lambda rows: read(numbers(rows, shape[0]) // block[0])


class ScaledFloats(Decoded):
    """Elements float32 (rows, columns) times scales (rows, groups), ``group`` columns each."""

    def __init__(
        self,
        name: str,
        shape: tuple[int, int],
        elements: RowValues,
        scales: RowValues,
        group: int,
    ) -> None:
        super().__init__(name, shape)
        self.elements, self.scales, self.group = elements, scales, group

    def values(self, rows: Rows) -> np.ndarray:
        x, scales, width = self.elements(rows), self.scales(rows), self.shape[1]
        if width % self.group == 0:
            x.reshape(len(x), -1, self.group)[...] *= scales[..., None]
        else:
            x *= scales[:, np.arange(width) // self.group]
        return x


class Eights(ScaledFloats):
    """A weight whose stored tensor holds floats of 8 bits."""

    def __init__(self, name: str, stored: Any, scales: RowValues, group: int) -> None:
        values = table(stored.dtype)
        super().__init__(
            name, stored.shape, lambda rows: values[bytes_of(stored, rows)], scales, group
        )


class Fours(ScaledFloats):
    """A weight of E2M1 in pairs, the first in the low half, under a scale per group.

    ``shared`` makes the float32 scales of a group what they are with the scale of the whole weight.
    """

    def __init__(
        self,
        name: str,
        stored: Any,
        scales: Any,
        shared: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        rows, half = stored.shape
        width, groups = 2 * half, scales.shape[-1] if scales.shape else 0
        if scales.shape != (rows, groups) or not groups or width % groups:
            raise FormatError(
                f"tensor {printable(scales.name)} has shape {scales.shape}, for a weight of "
                f"{(rows, width)}"
            )
        read = scale_values(scales)
        scaled = read if shared is None else lambda r: shared(read(r))
        super().__init__(name, (rows, width), self._elements, scaled, width // groups)
        self._stored, self._stored_scales = stored, scales
        powers = scales.dtype not in (*FLOATS, "F8_E4M3")
        if powers and shared is None and self.group == 32:
            self.dtype = "MXFP4"

    def _elements(self, rows: Rows) -> np.ndarray:
        from ggq.quants.tables import E2M1

        return (E2M1 / np.float32(2))[unpack(bytes_of(self._stored, rows), 4)]

    def fits(self, type_name: str) -> bool:
        return type_name == self.dtype == "MXFP4"

    def blocks(self, type_name: str, rows: Rows) -> np.ndarray:
        from ggq import quants
        from ggq.quants.searched import SearchedType

        powers = bytes_of(self._stored_scales, rows)
        if (powers == 255).any():
            raise FormatError(f"tensor {printable(self.name)} holds NaN or Inf")
        kind = quants.get(type_name)
        assert isinstance(kind, SearchedType), type_name
        return kind.pack({"d": powers}, unpack(bytes_of(self._stored, rows), 4))


def block_size(value: object, name: str) -> tuple[int, int] | None:
    """Return (rows, columns) of a block as config.json has them; FormatError."""
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2 and all(type(n) is int and n > 0 for n in value):
        return value[0], value[1]
    raise FormatError(
        f"config.json: quantization_config: {name} is {printable(repr(value))}, not two numbers"
    )


def eights(name: str, stored: Any, scales: Any, block: tuple[int, int] | None) -> Eights:
    """Return a weight of 8-bit floats.

    The shape of the scales tells whether they are for all, rows, groups of columns or blocks.
    """
    shape = stored.shape
    if len(shape) != 2 or not all(shape):
        raise FormatError(f"tensor {printable(name)} has shape {shape}, no matrix")
    block = scaled_block(scales.shape, shape, block)
    return Eights(name, stored, grid(scales, shape, block), block[1])


def scaled_block(
    found: tuple[int, ...], shape: tuple[int, int], block: tuple[int, int] | None
) -> tuple[int, int]:
    """Return (rows, columns) under one scale, for scales of the shape ``found``."""
    rows, columns = shape
    if prod(found) == 1:
        return shape
    if found in ((rows,), (rows, 1)):
        return 1, columns
    if block is None and len(found) == 2 and found[1] and columns % found[1] == 0:
        return 1, columns // found[1]
    return block or shape

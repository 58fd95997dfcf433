"""How the weights of vision towers become a projector file's: frames cut, colours put first.

It knows shapes, no names and no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ggq.converters.checkpoint.fused import Computed
from ggq.converters.safetensors import FLOATS, StoredTensor
from ggq.errors import ModelError, printable
from ggq.models.transform import Transform

__all__ = ["TRANSFORMS"]


@dataclass(frozen=True)
class LastColour(Computed):
    """A convolution (n, 3, side, side) over a matrix (n, side * side * 3): row, column, colour."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows of the flattened convolution: one colour of one row of pixels each."""
        _, colours, side, _ = self.shape
        per = colours * side
        first, last = start // per, -(-stop // per)
        found = self.parts[0].read(slice(first, last)).reshape(-1, side, side, colours)
        rows = found.transpose(0, 3, 1, 2).reshape(-1, side)
        return np.ascontiguousarray(rows[start - first * per : stop - first * per])


def _last_colour(name: str, shape: tuple[int, ...], parts: Sequence[StoredTensor]) -> LastColour:
    found = parts[0]
    if found.dtype not in FLOATS or tuple(found.shape) != (shape[0], prod(shape[1:])):
        what = f"tensor {printable(found.name)} {found.dtype} {found.shape}"
        raise ModelError(f"{what}: {name} needs floats of shape {(shape[0], prod(shape[1:]))}")
    return LastColour(name, shape, tuple(parts))


@dataclass(frozen=True)
class Number(Computed):
    """A vector of one value over a tensor without dimensions."""

    @property
    def type_name(self) -> str:
        return "F32"

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.parts[0].read(slice(0, 1)).reshape(1, 1)


def _number(name: str, shape: tuple[int, ...], parts: Sequence[StoredTensor]) -> Number:
    found = parts[0]
    if found.dtype not in FLOATS or prod(found.shape) != 1:
        what = f"tensor {printable(found.name)} {found.dtype} {found.shape}"
        raise ModelError(f"{what}: {name} needs one float")
    return Number(name, (1,), tuple(parts))


def _frame(number: int) -> Transform:
    """Return the transform that takes one of two frames: (n, 3, 2, side, side)."""

    def rows(sight, layer, n):  # type: ignore[no-untyped-def]
        side = sight.patch

        def source(row: np.ndarray) -> np.ndarray:
            plane, line = np.divmod(row, side)
            return (2 * plane + number) * side + line

        return source

    return Transform(rows=rows, whole=lambda sight, layer: 2 * sight.dim("embd"))


TRANSFORMS = {
    "first_frame": _frame(0),
    "second_frame": _frame(1),
    "number": Transform(bind=_number),
    "last_colour": Transform(bind=_last_colour),
}

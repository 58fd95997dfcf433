"""Learned positions of a square resized to a view, and angles of rotations: numpy, per view."""

from __future__ import annotations

import numpy as np

from ggq.errors import ModelError
from ggq.models.vision.sight import Sight, View

__all__ = ["axial", "check_square", "check_turns", "resized"]

Array = np.ndarray


def check_square(sight: Sight) -> None:
    """Raise ModelError where a tower's learned positions are those of no square."""
    n = sight.sizes.get("positions", 1)  # of a file without them its tensors are asked
    if round(n**0.5) ** 2 != n:
        raise ModelError(f"v.position_embd.weight: {n} positions are no square")


def check_turns(sight: Sight) -> None:
    """Raise ModelError where heads are no pairs for rows and as many for columns."""
    if sight.head_dim % 4:
        what = f"heads of {sight.head_dim} columns do not turn by row and column"
        raise ModelError(f"{sight.projector}: {what}")


def _corners(size: int, side: int) -> Array:
    """Return weights (size, side) of linear interpolation whose ends are the square's ends."""
    at = np.arange(size, dtype=np.float64) * (side - 1) / max(size - 1, 1)
    return np.maximum(0.0, 1 - abs(at[:, None] - np.arange(side)))


def _smooth(size: int, side: int) -> Array:
    """Return weights (size, side) of linear interpolation that averages where it shrinks."""
    scale = side / size
    centre = (np.arange(size, dtype=np.float64) + 0.5) * scale - 0.5
    away = abs(np.arange(side) - centre[:, None]) / max(scale, 1.0)
    weights: Array = np.maximum(0.0, 1 - away)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def resized(table: Array, view: View, corners: bool) -> Array:
    """Return a square's positions for a view, float64 (n, width), row by row.

    ``table``: (side**2, width), see `check_square`. ``corners``: the ends stay the ends (torch's
    align_corners); else pixels' middles count and shrinking averages (torch's antialias).
    """
    side = round(len(table) ** 0.5)
    weigh = _corners if corners else _smooth
    square = table.astype(np.float64).reshape(side, side, -1)
    down = np.tensordot(weigh(view.rows, side), square, axes=(1, 0))
    both = np.tensordot(weigh(view.columns, side), down, axes=(1, 1))  # (columns, rows, width)
    made: Array = both.transpose(1, 0, 2).reshape(view.n, -1)
    return made


def axial(view: View, pairs: int, base: float, turns: bool = False) -> Array:
    """Return angles (n, pairs): the first half turn with the row, the second with the column.

    ``pairs`` are even: `check_turns`.

    Frequencies fall from 1 to about 1 / ``base`` in each half; where the halves take ``turns``,
    rows have the even ones of twice as many, columns the odd ones.
    """
    half = pairs // 2
    steps = np.arange(half, dtype=np.float64)
    row, column = view.places
    if turns:
        along, across = base ** (-2 * steps / pairs), base ** (-(2 * steps + 1) / pairs)
    else:
        along = across = base ** (-steps / half)
    return np.concatenate([np.outer(row, along), np.outer(column, across)], axis=1)

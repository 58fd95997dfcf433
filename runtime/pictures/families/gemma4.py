"""Gemma 4: as many patches as its budget of tokens takes, in the picture's shape.

As transformers' Gemma4ImageProcessor: both sides are rounded down to whole tokens.
"""

import math

from ggq.errors import UsageError
from ggq.runtime.pictures.plans import Family, Plan, Sight, View

__all__ = ["FAMILY"]

_TOKENS = 280  # of a picture, where the file does not say


def plan(sight: Sight, height: int, width: int) -> Plan:
    """Return the picture in its shape between the model's marks."""
    side = sight.multiple
    most = (sight.max_pixels or _TOKENS * side * side) // (side * side)
    by = math.sqrt(most * side * side / (height * width))
    rows, columns = math.floor(by * height / side), math.floor(by * width / side)
    if not rows and not columns:
        raise UsageError(f"a picture of {width} x {height} pixels is too small")
    if not rows:
        rows, columns = 1, min(width // height, most)
    elif not columns:
        rows, columns = min(height // width, most), 1
    size = rows * side, columns * side
    return ["<|image>", View((size,), size), "<image|>"]


FAMILY = Family(("gemma4v",), ("<|image|>",), plan)

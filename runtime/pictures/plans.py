"""What a picture becomes in a prompt: texts, and views of it, each with its way of being scaled.

A plan follows from the picture's size alone, so that tokens are counted without a pixel. Families
make plans (families/), after transformers' image processors and processors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ggq.errors import UsageError

__all__ = ["BICUBIC", "BILINEAR", "LANCZOS", "Family", "Plan", "Sight", "View", "pixels", "smart"]

LANCZOS, BILINEAR, BICUBIC = 1, 2, 3  # Pillow's numbers
Size = tuple[int, int]  # height and width in pixels
_LONGEST = 200  # times its height that a picture may be wide, and the other way round


class Sight(Protocol):
    """What a projector file says of what it takes (ggq.models.vision.base.Sight)."""

    patch: int
    merge: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    min_pixels: int | None
    max_pixels: int | None
    longest_edge: int | None
    min_tiles: int | None
    max_tiles: int | None
    breaks: bool

    @property
    def multiple(self) -> int:
        """Of what number of pixels a view's height and width are multiples."""


@dataclass(frozen=True)
class View:
    """A part of a picture: it is scaled to each of ``sizes`` in turn, then ``box`` is cut out.

    ``box``: top and left corner, and ``size``: the height and width that remain. ``between``: the
    text between two rows of its tokens, for projectors whose rows hold nothing there.
    """

    sizes: tuple[Size, ...]
    size: Size
    box: Size = (0, 0)
    between: str = ""


Plan = list[str | View]


@dataclass(frozen=True)
class Family:
    """How one family of projectors wants pictures.

    ``marks``: what chat templates write in a picture's place; ``plan(sight, height, width)``: what
    stands there; ``kernel``: how pictures are scaled. ``mutual``: tokens of a picture see each
    other; ``sections``: they have M-RoPE's positions where the text model has these.
    """

    names: tuple[str, ...]
    marks: tuple[str, ...]
    plan: Any
    kernel: int = BICUBIC


def pixels(rgb: np.ndarray, plan: Plan, family: Family, sight: Sight) -> list[np.ndarray]:
    """Return the plan's views of a picture, float32 (3, height, width) each, normalized.

    ``rgb``: uint8 (height, width, 3). Scaling rounds to whole levels after each step, as
    transformers' processors do.
    """
    from PIL import Image

    scaled: dict[tuple[Size, ...], Any] = {(): Image.fromarray(rgb)}
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (sight.mean, sight.std))
    found = []
    for view in plan:
        if isinstance(view, str):
            continue
        for n in range(1, len(view.sizes) + 1):
            if view.sizes[:n] not in scaled:
                height, width = view.sizes[n - 1]
                before = scaled[view.sizes[: n - 1]]
                scaled[view.sizes[:n]] = before.resize((width, height), family.kernel)
        (top, left), (height, width) = view.box, view.size
        whole = np.asarray(scaled[view.sizes])
        cut = whole[top : top + height, left : left + width]
        planes = np.ascontiguousarray(cut.transpose(2, 0, 1), np.float32)
        found.append((planes * np.float32(1 / 255) - mean) / std)
    return found


def smart(size: Size, multiple: int, least: int, most: int, at_least_one: bool = False) -> Size:
    """Return the size in whole multiples, of ``least`` to ``most`` pixels, alike in shape.

    Qwen2-VL's rule (arXiv 2409.12191; transformers' smart_resize). ``at_least_one``: LFM2-VL's,
    where a short side is one multiple before the pixels are counted.
    """
    height, width = size
    shape = max(height, width) / min(height, width)
    if shape > _LONGEST:
        raise UsageError(f"a picture of {width} x {height} pixels is too long: at most 200 to 1")
    floor = multiple if at_least_one else 0
    high, wide = (max(floor, round(n / multiple) * multiple) for n in size)
    if high * wide > most:
        by = math.sqrt(height * width / most)
        high, wide = (max(multiple, math.floor(n / by / multiple) * multiple) for n in size)
    elif high * wide < least:
        by = math.sqrt(least / (height * width))
        high, wide = (math.ceil(n * by / multiple) * multiple for n in size)
    return high, wide


def best_grid(size: Size, side: int, least: int, most: int) -> Size:
    """Return (rows, columns) of ``least`` to ``most`` tiles whose shape is nearest the picture's.

    Of grids of the same shape the larger one, while the picture has over half of its pixels
    (InternVL, arXiv 2404.16821; LFM2-VL).
    """
    height, width = size
    grids = [
        (rows, columns)
        for columns in range(1, most + 1)
        for rows in range(1, most + 1)
        if least <= rows * columns <= most
    ]
    best, least_off = (1, 1), math.inf
    for rows, columns in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        off = abs(width / height - columns / rows)
        enough = height * width > 0.5 * side * side * rows * columns
        if off < least_off or (off == least_off and enough):
            best, least_off = (rows, columns), off
    return best


def tiles(sizes: tuple[Size, ...], grid: Size, side: int) -> list[View]:
    """Return the views that cut a scaled picture into squares, row by row."""
    return [
        View(sizes, (side, side), (row * side, column * side))
        for row in range(grid[0])
        for column in range(grid[1])
    ]

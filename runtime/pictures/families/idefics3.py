"""Idefics 3 and SmolVLM: rows of square tiles, then the whole picture as one.

As transformers' Idefics3ImageProcessor: the longest edge is scaled first, then both to whole tiles.
"""

import math

from ggq.runtime.pictures.plans import LANCZOS, Family, Plan, Sight, View

__all__ = ["FAMILY"]

_TILES = 4  # of the longest edge, where the file does not say
_LIMIT = 4096  # pixels of it
_AROUND, _WHOLE = "<fake_token_around_image>", "<global-img>"


def plan(sight: Sight, height: int, width: int) -> Plan:
    """Return the tiles with their places, a line for each row, and the whole picture."""
    side = sight.image_size
    first = _longest(height, width, min(sight.longest_edge or _TILES * side, _LIMIT))
    second = _whole_tiles(*first, side)
    rows, columns = second[0] // side, second[1] // side
    if rows * columns == 1:
        return [_AROUND + _WHOLE, View((first, second), second), _AROUND]
    found: Plan = []
    line = ""
    for row in range(rows):
        for column in range(columns):
            place = f"<row_{row + 1}_col_{column + 1}>"
            box = row * side, column * side
            found += [line + _AROUND + place, View((first, second), (side, side), box)]
            line = ""
        line = "\n"
    square = side, side
    return [*found, f"\n\n{_AROUND}{_WHOLE}", View((first, second, square), square), _AROUND]


def _longest(height: int, width: int, longest: int) -> tuple[int, int]:
    """Return the size with that longest edge; the other one is even."""
    shape = width / height
    if width >= height:
        short = int(longest / shape)
        return max(short + short % 2, 1), longest
    short = int(longest * shape)
    return longest, max(short + short % 2, 1)


def _whole_tiles(height: int, width: int, side: int) -> tuple[int, int]:
    """Return the size in whole tiles, each side rounded up."""
    shape = width / height
    if width >= height:
        width = math.ceil(width / side) * side
        height = int(width / shape)
    else:
        height = math.ceil(height / side) * side
        width = int(height * shape)
    return math.ceil(height / side) * side, math.ceil(width / side) * side


FAMILY = Family(("idefics3",), ("<image>",), plan, LANCZOS)

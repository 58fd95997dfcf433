"""InternVL: the grid of square tiles nearest the picture's shape, then the whole as one square.

As transformers' processor with its default, crop_to_patches.
"""

from ggq.runtime.pictures.plans import Family, Plan, Sight, View, best_grid, tiles

__all__ = ["FAMILY"]

_FEWEST, _MOST = 1, 12  # tiles, where the file does not say


def plan(sight: Sight, height: int, width: int) -> Plan:
    """Return the tiles in reading order and the whole picture, between the model's marks."""
    side = sight.image_size
    limits = sight.min_tiles or _FEWEST, sight.max_tiles or _MOST
    rows, columns = best_grid((height, width), side, *limits)
    views = tiles(((rows * side, columns * side),), (rows, columns), side)
    if len(views) > 1:
        views.append(View(((side, side),), (side, side)))
    return ["<img>", *views, "</img>"]


FAMILY = Family(("internvl",), ("<IMG_CONTEXT>", "<image>"), plan)

"""LFM2-VL: a small picture in its shape; a large one in tiles, with the whole one after them.

As transformers' Lfm2VlImageProcessor and processor.
"""

from ggq.runtime.pictures.plans import BILINEAR, Family, Plan, Sight, View, best_grid, smart, tiles

__all__ = ["FAMILY"]

_FEWEST, _MOST = 64, 256  # tokens of a view, where the file does not say
_TILES = 2, 10
_SIDE = 512  # pixels of a tile
_TOLERANCE = 2.0  # times the most pixels of one view that are not cut yet


def plan(sight: Sight, height: int, width: int) -> Plan:
    """Return one view, or tiles with their places and the whole picture, between the marks."""
    side = sight.multiple
    most = sight.max_pixels or _MOST * side * side
    least = sight.min_pixels or _FEWEST * side * side
    size = smart((height, width), side, least, most, at_least_one=True)
    whole = View((size,), size)
    limits = sight.min_tiles or _TILES[0], sight.max_tiles or _TILES[1]
    rounded = [max(sight.patch, round(n / side) * side) for n in (height, width)]
    if rounded[0] * rounded[1] <= most * _TOLERANCE or limits == (1, 1):
        return ["<|image_start|>", whole, "<|image_end|>"]
    rows, columns = best_grid((height, width), _SIDE, *limits)
    found: Plan = ["<|image_start|>"]
    views = tiles(((rows * _SIDE, columns * _SIDE),), (rows, columns), _SIDE)
    for i, view in enumerate(views):
        found += [f"<|img_row_{i // columns + 1}_col_{i % columns + 1}|>", view]
    if len(views) > 1:
        found += ["<|img_thumbnail|>", whole]
    return [*found, "<|image_end|>"]


FAMILY = Family(("lfm2",), ("<image>",), plan, BILINEAR)

"""Qwen2-VL, 2.5-VL, 3-VL and Qwen3.5: the picture in its shape and, within limits, its size."""

from ggq.runtime.pictures.plans import Family, Plan, Sight, View, smart

__all__ = ["FAMILY"]

_FEWEST, _MOST = 8, 4096  # tokens, where the file does not say: llama.cpp's limits


def plan(sight: Sight, height: int, width: int) -> Plan:
    """Return the picture in whole tokens between the model's marks."""
    side = sight.multiple
    least = sight.min_pixels or _FEWEST * side * side
    size = smart((height, width), side, least, sight.max_pixels or _MOST * side * side)
    return ["<|vision_start|>", View((size,), size), "<|vision_end|>"]


FAMILY = Family(
    ("qwen2vl_merger", "qwen2.5vl_merger", "qwen3vl_merger"),
    ("<|vision_start|><|image_pad|><|vision_end|>",),
    plan,
)

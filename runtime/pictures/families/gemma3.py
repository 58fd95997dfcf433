"""Gemma 3: the whole picture as one square (transformers' Gemma3ImageProcessor, without crops)."""

from ggq.runtime.pictures.plans import BILINEAR, Family, Plan, Sight, View

__all__ = ["FAMILY"]


def plan(sight: Sight, height: int, width: int) -> Plan:
    """Return the square between the model's marks and blank lines."""
    square = sight.image_size, sight.image_size
    return ["\n\n<start_of_image>", View((square,), square), "<end_of_image>\n\n"]


FAMILY = Family(("gemma3",), ("<start_of_image>",), plan, BILINEAR)

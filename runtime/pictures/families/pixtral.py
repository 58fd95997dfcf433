"""Pixtral and Mistral 3: the picture in its shape, no larger than a square (PixtralImageProcessor).

What ends each row of the picture is text where the projector's rows do not hold it; so is the
picture's last mark.
"""

import math

from ggq.runtime.pictures.plans import Family, Plan, Sight, View

__all__ = ["FAMILY"]


def plan(sight: Sight, height: int, width: int) -> Plan:
    """Return the picture in whole tokens, both sides rounded up, and the mark of its end."""
    by = max(height / sight.image_size, width / sight.image_size)
    if by > 1:
        height, width = math.floor(height / by), math.floor(width / by)
    side = sight.multiple
    size = (max(height, 1) - 1) // side * side + side, (max(width, 1) - 1) // side * side + side
    return [View((size,), size, between="" if sight.breaks else "[IMG_BREAK]"), "[IMG_END]"]


FAMILY = Family(("pixtral",), ("[IMG]",), plan)

"""The families' ways with pictures: a file each with a module-level ``FAMILY``."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from ggq.errors import ModelError, printable
from ggq.runtime.pictures.plans import Family

__all__ = ["family_of"]


def family_of(projector: str) -> Family:
    """Return the family that prepares pictures for a projector (``clip.projector_type``)."""
    known = _families()
    if projector not in known:
        names = ", ".join(sorted(known))
        raise ModelError(f"projector {printable(projector, 40)}: pictures are prepared for {names}")
    return known[projector]


@functools.cache
def _families() -> dict[str, Family]:
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(__path__):
        family = importlib.import_module(f"{__name__}.{module.name}").FAMILY
        found |= dict.fromkeys(family.names, family)
    return found

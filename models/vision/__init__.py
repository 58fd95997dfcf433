"""Vision towers: one file each, read by converter and runtime alike; free of torch and of files.

A module of this folder with a module-level ``TOWERS`` is registered by being there.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from ggq.errors import ModelError, known_names, printable
from ggq.models.vision.tower import Tower

__all__ = ["CLIP", "all_towers", "for_hf", "get", "of_file", "suits"]

CLIP = "clip"  # what projector files call their architecture
KEYS = ("clip.projector_type", "clip.vision.projector_type")


@functools.cache
def _registry() -> dict[str, Tower]:
    found: dict[str, Tower] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        for tower in getattr(importlib.import_module(f"{__name__}.{module}"), "TOWERS", ()):
            assert tower.projector not in found, tower.projector
            found[tower.projector] = tower
    return found


def all_towers() -> list[Tower]:
    """Return every tower, by the module it is in."""
    return list(_registry().values())


def get(projector: str) -> Tower:
    """Return the tower whose files have this ``clip.projector_type``; ModelError names all."""
    found = _registry().get(projector)
    if found is None:
        known = known_names(projector, _registry())
        raise ModelError(f"projector type {printable(repr(projector))} is not supported: {known}")
    return found


def of_file(gguf: Any) -> Tower:
    """Return the tower of an opened projector file; ModelError where it is none of a picture's."""
    arch = gguf.metadata.get("general.architecture")
    if arch != CLIP:
        what = f"general.architecture is {printable(repr(arch))}"
        raise ModelError(f"{printable(gguf.path)}: {what}: a projector file (mmproj) says clip")
    said = next((gguf.metadata[key] for key in KEYS if key in gguf.metadata), None)
    if said is not None and not isinstance(said, str):
        raise ModelError(f"{printable(gguf.path)}: clip.projector_type is no text")
    if said is None or gguf.metadata.get("clip.has_vision_encoder") is False:
        raise ModelError(f"{printable(gguf.path)}: the projector is none of pictures")
    return get(said)


def for_hf(config: Mapping[str, Any]) -> Tower | None:
    """Return the tower of an HF config.json, None where it has none that is supported."""
    names = config.get("architectures") or []
    if not isinstance(config.get("vision_config"), Mapping) or not isinstance(names, list):
        return None
    return next(
        (t for t in all_towers() if t.suits(config) and any(n in t.hf_classes for n in names)), None
    )


def suits(projector: str, arch: str) -> bool:
    """Tell whether a projector of that type can be a text model's; ModelError as `get`.

    Rows of one family mean nothing to another, however wide they are.
    """
    tower = get(projector)
    choosy = {name for other in all_towers() for name in other.texts}
    return arch in tower.texts if tower.texts or arch in choosy else True

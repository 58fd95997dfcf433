"""The recipes behind ``--quality``, as data, and how a command line's wishes become passes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from ggq.converters.prepasses.base import Prepass, Progress, parse
from ggq.errors import UsageError, option, printable

__all__ = ["QUALITY", "passes"]

# Each measured better than the one before on texts it was not calibrated on: docs/quality.md.
QUALITY: dict[str, tuple[str, ...]] = {
    "fast": (),
    "good": ("gptq:tokens=4096",),  # in less time than llama-imatrix takes
    "best": ("gptq:tokens=32768",),
}
WITHOUT_TORCH = {"good": ("imatrix:tokens=4096",)}  # importance runs in numpy, too


def passes(
    quality: str | None,
    prepasses: Sequence[str],
    calibration: str | None = None,
    progress: Progress | None = None,
) -> list[Prepass]:
    """Return the passes of a preset, then those asked for by name, in order."""
    if quality is not None and quality not in QUALITY:
        raise UsageError(f"{option('--quality')} {printable(quality)}: one of {', '.join(QUALITY)}")
    given: dict[str, Any] = {"calibration": calibration, "progress": progress}
    recipes = QUALITY if find_spec("torch") else QUALITY | WITHOUT_TORCH
    texts = [*recipes[quality or "fast"], *prepasses]
    return [parse(text, **given) for text in texts]

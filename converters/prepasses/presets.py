"""The recipes behind ``--quality``, as data, and how a command line's wishes become passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ggq.converters.prepasses.base import Prepass, Progress, parse
from ggq.errors import UsageError, printable

__all__ = ["QUALITY", "passes"]

# Each measured better than the one before on texts it was not calibrated on: docs/quality.md.
QUALITY: dict[str, tuple[str, ...]] = {
    "fast": (),
    "good": ("imatrix:tokens=16384",),
    "best": ("gptq:tokens=32768",),
}


def passes(
    quality: str | None,
    prepasses: Sequence[str],
    calibration: str | None = None,
    progress: Progress | None = None,
) -> list[Prepass]:
    """Return the passes of a preset, then those asked for by name, in order."""
    if quality is not None and quality not in QUALITY:
        raise UsageError(f"--quality {printable(quality)}: one of {', '.join(QUALITY)}")
    given: dict[str, Any] = {"calibration": calibration, "progress": progress}
    texts = [*QUALITY.get(quality or "fast", ()), *prepasses]
    return [parse(text, **given) for text in texts]

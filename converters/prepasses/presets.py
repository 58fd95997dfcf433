"""The recipes behind ``--quality``, as data, and how a command line's wishes become passes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec

from ggq.converters.prepasses.base import Pass, parse
from ggq.errors import UsageError, option, printable

__all__ = ["QUALITY", "passes"]

# Each measured better than the one before on texts it was not calibrated on: docs/quality.md.
QUALITY: dict[str, tuple[str, ...]] = {
    "fast": (),
    "good": ("gptq:tokens=8192,ridge=0.2",),
    "best": ("gptq:tokens=32768",),
}
WITHOUT_TORCH = {"good": ("imatrix:tokens=4096",)}  # importance runs in numpy, too


def passes(
    quality: str | None,
    prepasses: Sequence[str | Pass | type[Pass]],
    calibration: str | os.PathLike[str] | None = None,
) -> list[Pass]:
    """Return the passes of a preset, then those asked for by name or given, in order.

    A class stands for its pass with the defaults: GPTQ for GPTQ(). ``calibration``: the text of
    those that are named.
    """
    if quality is not None and quality not in QUALITY:
        raise UsageError(f"{option('--quality')} {printable(quality)}: one of {', '.join(QUALITY)}")
    recipes = QUALITY if find_spec("torch") else QUALITY | WITHOUT_TORCH
    made: list[Pass] = []
    for one in (*recipes[quality or "fast"], *prepasses):
        if isinstance(one, str):
            one = parse(one, calibration=calibration)
        made.append(one() if isinstance(one, type) else one)
    return made

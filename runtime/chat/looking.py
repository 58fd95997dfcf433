"""How far a model is with looking at a picture, told where it takes over a second."""

from __future__ import annotations

import time

from ggq.runtime.chat.screen import Printer

__all__ = ["Looking"]

_PATIENCE = 1.0  # seconds without a word
_STEP = 0.25  # of a picture, between two notes


class Looking:
    """Called with the share that is done, from 0 to 1, once and again for each picture."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._started, self._told, self._last = 0.0, 0.0, 1.0

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if share < self._last or self._last >= 1.0:
            self._started, self._told = now, 0.0
        self._last = share
        if now - self._started > _PATIENCE and share >= self._told + _STEP and share < 1.0:
            self._told = share
            self._printer.note(f"looking at the picture: {100 * share:.0f} %")

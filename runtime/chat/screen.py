"""Answers on their way out, as the model writes them; for pipes and plain terminals.

Answers go to ``out``; notes, statistics and thoughts to ``err``.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TextIO

from ggq.runtime.generation.answer import Piece

__all__ = ["FOLD", "HIDE", "SHOW", "Ended", "Printer", "Stopped", "visible"]

FOLD, SHOW, HIDE = "fold", "show", "hide"


class Stopped(KeyboardInterrupt):
    """Ctrl-C after a message was sent and before its answer began: it is not answered."""


@dataclass
class Ended:
    """How an answer ended: its finish reason, whether Ctrl-C ended it, seconds of thinking."""

    reason: str | None = None
    interrupted: bool = False
    thought_seconds: float = 0.0


class Printer:
    """Streams answers: on a terminal without control characters that a model may emit.

    ``thoughts``: fold (told in a line), show or hide.
    """

    def __init__(self, out: TextIO, err: TextIO, thoughts: str = FOLD) -> None:
        """Take the streams for answers and for notes."""
        self._out, self._err, self.thoughts = out, err, thoughts
        self.unfold = "--thoughts show prints it"
        self._filter = out.isatty()

    def stream(self, pieces: Generator[Piece, None, None]) -> Ended:
        """Write the pieces as they come; return how they ended."""
        ended, since = Ended(), None
        self.begin()
        try:
            for piece in pieces:
                ended.reason = piece.finish_reason or ended.reason
                text = visible(piece.text) if self._filter else piece.text
                if piece.thought:
                    since = since or time.monotonic()
                    ended.thought_seconds = time.monotonic() - since
                    self.think(text, ended.thought_seconds)
                elif text:
                    if since is not None:
                        self.thought(ended.thought_seconds)
                        since = None
                    self.write(text)
        except KeyboardInterrupt:
            ended.interrupted = True
            pieces.close()
        if since is not None:
            self.thought(ended.thought_seconds)
        self.end()
        return ended

    def note(self, text: str) -> None:
        """Write a line that is no answer."""
        self._err.write(text + "\n")
        self._err.flush()

    # -- what another kind of screen does otherwise

    def begin(self) -> None:
        """Begin an answer."""
        self._last = ""

    def think(self, text: str, seconds: float) -> None:
        """Take a piece of the thoughts."""
        if self.thoughts == SHOW:
            self._err.write(text)
            self._err.flush()

    def thought(self, seconds: float) -> None:
        """End the thoughts."""
        if self.thoughts == SHOW:
            self._err.write("\n\n")
        elif self.thoughts == FOLD:
            self.note(folded(seconds, self.unfold))

    def write(self, text: str) -> None:
        """Take a piece of the answer."""
        self._last = text
        self._out.write(text)
        self._out.flush()

    def end(self) -> None:
        """End the answer, however it ended."""
        if not self._last.endswith("\n"):
            self._out.write("\n")
        self._out.flush()


def folded(seconds: float, how: str) -> str:
    """Return the line that thoughts are folded into, and how to unfold it."""
    return f"[thought for {seconds:.1f} s; {how}]"


def visible(text: str) -> str:
    """Return ``text`` with control characters other than line ends and tabs made visible."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" or ord(c) > 0x9F else _shown(c) for c in text
    )


def _shown(char: str) -> str:
    return "" if char == "\r" else f"\\x{ord(char):02x}"

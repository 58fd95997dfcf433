"""What reads the text between the marks of calls while it comes.

It knows no marks and no way to write a call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from ggq.runtime.formats.base import CALL, CONTENT, Call, Delta, Tools

__all__ = ["CallReader", "Reader", "begin", "content", "more"]


class CallReader(Protocol):
    """What a parser asks of a reader."""

    @property
    def rest(self) -> str | None:
        """Return what follows the closing mark, None before it."""

    def push(self, text: str) -> list[Delta]:
        """Return what is certain after another piece of text."""

    def finish(self) -> list[Delta]:
        """Return the rest where the answer ends before the closing mark."""


class Reader(ABC):
    """Reads one text with calls; its deltas are not numbered yet.

    ``closing`` "" is the end of the answer.
    """

    def __init__(self, tools: Tools, opening: str, closing: str) -> None:
        """Take the tools and the marks around."""
        self.tools, self._opening, self._closing = tools, opening, closing
        self._rest: str | None = None
        self._held = ""
        self._begun = False  # whether a call has come

    @property
    def rest(self) -> str | None:
        """Return what follows the closing mark, None before it."""
        return self._rest

    def push(self, text: str) -> list[Delta]:
        """Return what is certain after another piece of text."""
        self._held += text
        out: list[Delta] = []
        while self._rest is None and self._step(out):
            pass
        return out

    @abstractmethod
    def finish(self) -> list[Delta]:
        """Return the rest where the answer ends before the closing mark."""

    @abstractmethod
    def _step(self, out: list[Delta]) -> bool:
        """Take one step and tell whether it led anywhere."""

    def _end(self, at: int) -> None:
        """Close the text before ``at``, where the closing mark stands."""
        self._rest, self._held = self._held[at + len(self._closing) :], ""


def begin(name: str) -> Delta:
    """Return the beginning of a call."""
    return Delta(CALL, call=Call(name, ""))


def more(arguments: str) -> Delta:
    """Return more of the arguments of the call in work."""
    return Delta(CALL, arguments)


def content(text: str) -> Delta:
    """Return text that is no call."""
    return Delta(CONTENT, text)

"""Answers on a terminal that can move its cursor: Markdown rendered while it streams.

The last block of an answer may still change, so it is drawn again as it grows; what has scrolled
off the screen stays as it was drawn.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ggq.runtime.chat.markdown import Renderer, finished
from ggq.runtime.chat.screen import FOLD, HIDE, SHOW, Printer, folded

__all__ = ["Area", "Rendered"]

_INTERVAL = 0.06  # seconds between two drawings at least
_SHARE = 4  # of the time at most one part in so many goes into drawing
_GLIMPSE = 3  # lines of thoughts that are seen while they come


class Area:
    """The last lines of a terminal, drawn again and again; the cursor stays at their end."""

    def __init__(self, out: TextIO) -> None:
        """Take the terminal."""
        self._out = out
        self._lines: list[str] = []
        self._width = 0

    @property
    def size(self) -> os.terminal_size:
        """Columns and rows, as they are now."""
        try:
            found = os.get_terminal_size(self._out.fileno())
        except (OSError, ValueError, AttributeError):
            found = shutil.get_terminal_size()
        return found if found.columns > 0 and found.lines > 0 else os.terminal_size((80, 24))

    def draw(self, lines: list[str]) -> None:
        """Put these lines in the place of those that were drawn."""
        columns, height = self.size
        if columns != self._width and self._lines:
            lines = self._resized(lines, columns, height)
        self._width = columns
        same = 0
        while same < min(len(lines), len(self._lines)) and lines[same] == self._lines[same]:
            same += 1
        if same == len(lines) == len(self._lines):
            return
        rows = [self._rows(line, columns) for line in self._lines]
        while same < len(self._lines) and sum(rows[same:]) > height:
            same += 1  # off the screen: nothing can be changed there
        if 0 < same == len(lines) and sum(rows[same - 1 :]) <= height:
            same -= 1  # lines went: the cursor belongs at the end of the last one left
        text = ""
        if same < len(self._lines):
            up = sum(rows[same:]) - 1
            text = (f"\x1b[{up}A" if up else "") + "\r\x1b[J"
        elif self._lines and len(lines) > same:
            text = "\r\n"
        self._out.write(text + "\r\n".join(lines[same:]))
        self._out.flush()
        self._lines = self._lines[:same] + lines[same:]

    def leave(self) -> None:
        """Let the lines stand; what is drawn next comes below them."""
        if self._lines:
            self._out.write("\r\n")
            self._out.flush()
        self._lines = []

    def _resized(self, lines: list[str], columns: int, height: int) -> list[str]:
        """Return the new lines, behind those that have scrolled away in the old width."""
        rows = [self._rows(line, columns) for line in self._lines]
        gone = 0
        while sum(rows[gone:]) > height:
            gone += 1
        seen, skip = sum(map(_weight, self._lines[:gone])), 0
        while seen > 0 and skip < len(lines):
            seen -= _weight(lines[skip])
            skip += 1
        return self._lines[:gone] + lines[skip:] if gone else lines

    @staticmethod
    def _rows(line: str, columns: int) -> int:
        return max(1, -(-cell_len(Text.from_ansi(line).plain) // columns))


def _weight(line: str) -> int:
    return len("".join(Text.from_ansi(line).plain.split()))


class Rendered(Printer):
    """Streams answers as rendered Markdown, thoughts dimmed."""

    def __init__(self, out: TextIO, err: TextIO, thoughts: str = FOLD) -> None:
        """Take the terminal for answers, and the stream for notes."""
        super().__init__(out, err, thoughts)
        self._renderer = Renderer(Console(file=out, force_terminal=True))
        self._area = Area(out)

    def begin(self) -> None:
        """Begin an answer."""
        self._text = self._thoughts = ""
        self._blocks, self._drawn, self._wait = 0, 0.0, _INTERVAL

    def think(self, text: str, seconds: float) -> None:
        """Show the thoughts' last lines, or all of them, dimmed."""
        self._thoughts += text
        if self.thoughts != HIDE and self._due():
            self._draw_thoughts(seconds)

    def thought(self, seconds: float) -> None:
        """Fold the thoughts into a line."""
        if self.thoughts == FOLD:
            line = folded(seconds, self.unfold)
            self._area.draw(self._renderer.dim(line, self._width))
        elif self.thoughts == SHOW:
            self._draw_thoughts(seconds)
        self._area.leave()
        if self.thoughts == SHOW:
            self._out.write("\r\n")

    def write(self, text: str) -> None:
        """Draw what is new of the answer."""
        self._text += text
        if self._due():
            self._draw()

    def end(self) -> None:
        """Draw what is left."""
        self._draw()
        self._area.leave()

    @property
    def _width(self) -> int:
        return max(self._area.size.columns - 1, 8)

    def _due(self) -> bool:
        return time.monotonic() - self._drawn >= self._wait

    def _draw_thoughts(self, seconds: float) -> None:
        lines = self._renderer.dim(self._thoughts.strip(), self._width)
        if self.thoughts == FOLD:
            head = self._renderer.dim(f"[thinking, {seconds:.0f} s]", self._width)
            lines = head + lines[-_GLIMPSE:]
        self._area.draw(lines)
        self._drawn = time.monotonic()

    def _draw(self) -> None:
        """Draw the last block again, after those before it that are now known to be whole."""
        started = time.monotonic()
        while cut := finished(self._text):
            self._area.draw(self._block(self._text[:cut]))
            self._area.leave()
            self._text, self._blocks = self._text[cut:], self._blocks + 1
        self._area.draw(self._block(self._text))
        self._drawn = time.monotonic()
        self._wait = max(_INTERVAL, _SHARE * (self._drawn - started))

    def _block(self, text: str) -> list[str]:
        lines = self._renderer.lines(text, self._width)
        return ["", *lines] if self._blocks and lines else lines

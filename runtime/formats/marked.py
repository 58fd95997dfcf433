"""The parser of formats that put marks around thoughts and calls.

What may be the beginning of a mark is held back; text that only looks like a call comes out as the
content it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from copy import copy
from dataclasses import replace
from typing import Any

from ggq.runtime.formats.base import (
    CALL,
    CONTENT,
    REASONING,
    Delta,
    Format,
    Function,
    Lark,
    Tools,
    joined,
    new_call_id,
)
from ggq.runtime.formats.reader import CallReader
from ggq.runtime.formats.rules import Written
from ggq.runtime.formats.thoughts import marks_of

__all__ = ["MakeReader", "MarkedFormat", "MarkedParser"]

MakeReader = Callable[[Tools, str, str], CallReader]
_DROPPED, _WRAPPED, _CLOSED = "dropped", "wrapped", "closed"


class MarkedFormat(Format):
    """A format with marks around calls, ``(mark, "")`` where the answer's end closes them.

    ``bare``: a call may be an answer that is nothing but JSON. ``dropped``: marks between the parts
    of an answer that say nothing to a reader. ``wraps``: pairs around the whole of what is said,
    words that may also stand inside of it. ``calls_in_thoughts``: a call does not wait for their
    end. ``written``: how calls are forced.
    """

    calls: tuple[tuple[str, str], ...] = (("<tool_call>", "</tool_call>"),)
    bare = False
    dropped: tuple[str, ...] = ()
    wraps: tuple[tuple[str, str], ...] = ()
    calls_in_thoughts = False
    reader: MakeReader
    written: Written

    def __init__(self) -> None:
        """Collect the marks: control tokens among them have to be seen to be understood."""
        pairs = (self.think, *self.calls, *self.wraps)
        found = {mark for pair in pairs for mark in pair if mark}
        self.marks = tuple(sorted({*found, *self.dropped, *type(self).marks}))

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        """Tell whether the template writes the mark before a call."""
        return self.calls[0][0] in template

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        """Return the rules of calls as they are written."""
        return self.written.rules(functions, lark, many)

    def spelled(self, calls: list[dict[str, Any]]) -> str:
        """Return calls as they are written, where their arguments are JSON."""
        written = getattr(self, "written", None)
        return "" if written is None else written.spelled(calls)

    def fitted(self, template: str, tokens: Collection[str]) -> Format:
        """Return the format with the marks around thoughts that the template writes."""
        think = marks_of(template, self.think)
        return self if think == self.think else self.changed(think=think)

    def changed(self, **attributes: Any) -> MarkedFormat:
        """Return a copy with other attributes."""
        form = copy(self)
        vars(form).update(attributes)
        MarkedFormat.__init__(form)
        return form

    def parser(self, tools: Tools, thinking: bool, continued: bool = False) -> MarkedParser:
        """Return the reader of one answer."""
        return MarkedParser(self, tools, thinking, continued)


class MarkedParser:
    """Reads one answer."""

    def __init__(self, form: MarkedFormat, tools: Tools, thinking: bool, continued: bool = False):
        """Take the tools (none: calls stay text) and whether the prompt opened thoughts.

        ``continued``: it ends with a part of the answer, and white space after that counts.
        """
        self._form, self._tools = form, tools
        self._state = REASONING if thinking else CONTENT
        self._held = ""
        self._reader: CallReader | None = None
        self._begun = continued and not thinking  # whether content has come, apart from white space
        self._trim = thinking and not continued
        self.n_calls = 0
        self._id = ""
        self._bare = form.bare and bool(tools)
        self._wrap = ""  # the mark that closes what is said
        self._after = ""  # that mark, where it has come, with the white space before it

    def push(self, text: str) -> list[Delta]:
        """Return what is certain after another piece of text."""
        self._held += text
        return joined(self._drain())

    def finish(self) -> list[Delta]:
        """Return the rest at the end of the answer."""
        out = list(self._drain())
        if self._reader is not None:
            out += self._read(self._reader.finish())
        rest, self._held = self._held, ""
        return joined(out + self._text(rest))

    def _drain(self) -> Iterator[Delta]:
        while True:
            if self._reader is not None:
                pushed, self._held = self._held, ""
                yield from self._read(self._reader.push(pushed))
                if self._reader.rest is None:
                    return
                self._held, self._reader = self._reader.rest, None
                continue
            if self._may_be_json():
                self._reader = self._form.reader(self._tools, "", "")
                self._bare = False
                continue
            mark = self._first_mark()
            if mark is None:
                yield from self._certain_text()
                return
            at, opening, state, closing = mark
            text, self._held = self._held[:at], self._held[at + len(opening) :]
            said = text.rstrip()
            yield from self._text(said)
            self._trim = True
            if state == CALL:
                self._after = ""
                self._reader = self._form.reader(self._tools, opening, closing)
            elif state == _WRAPPED:
                self._wrap = closing
            elif state == _CLOSED:
                self._after, self._trim = self._after + text[len(said) :] + opening, False
            elif state != _DROPPED:
                self._state = state

    def _certain_text(self) -> list[Delta]:
        """Return the text that no mark can begin in."""
        cut = len(self._held) - self._overlap()
        if any(self._marks()):  # white space before a mark is no part of the answer
            cut = len(self._held[:cut].rstrip())
        text, self._held = self._held[:cut], self._held[cut:]
        return self._text(text)

    def _marks(self) -> Iterator[tuple[str, str, str]]:
        """Yield (mark, state after it, closing mark) of what can come next."""
        opening, closing = self._form.think
        if self._state == REASONING:
            yield closing, CONTENT, ""
        elif opening and not self._begun:
            yield opening, REASONING, ""
        if self._tools and (self._state == CONTENT or self._form.calls_in_thoughts):
            for mark, end in self._form.calls:
                yield mark, CALL, end
        if self._state == CONTENT:
            for mark in self._form.dropped:
                yield mark, _DROPPED, ""
            for mark, end in self._form.wraps if not self._begun else ():
                yield mark, _WRAPPED, end
            if self._wrap:
                yield self._wrap, _CLOSED, ""

    def _first_mark(self) -> tuple[int, str, str, str] | None:
        found = [
            (at, mark, state, closing)
            for mark, state, closing in self._marks()
            if (at := self._held.find(mark)) >= 0
            and (state not in (REASONING, _WRAPPED) or not self._held[:at].strip())
        ]
        return min(found, default=None)

    def _overlap(self) -> int:
        """Return how many last characters may begin a mark."""
        marks = [mark for mark, _, _ in self._marks()]
        longest = max(map(len, marks), default=1) - 1
        sizes = range(min(longest, len(self._held)), 0, -1)
        return next((n for n in sizes if any(m.startswith(self._held[-n:]) for m in marks)), 0)

    def _may_be_json(self) -> bool:
        """Return whether the whole answer so far may be a bare call."""
        if not self._bare or self._state != CONTENT or self._begun:
            return False
        text = self._held.lstrip()
        return text[:1] == "{" or text[:2] in ("[", "[{")

    def _read(self, deltas: list[Delta]) -> Iterator[Delta]:
        """Number what a reader has read."""
        for delta in deltas:
            if delta.kind == CONTENT:
                self._trim = False
                yield from self._text(delta.text)
                continue
            if delta.call is not None:
                self._trim, self._id = True, new_call_id()
                self.n_calls += 1
            yield replace(delta, index=self.n_calls - 1, id=self._id)

    def _text(self, text: str) -> list[Delta]:
        if self._trim:
            text = text.lstrip()
        if self._after:
            text, self._after = (
                (self._after + text, "") if text.strip() else ("", self._after + text)
            )
        if not text:
            return []
        self._trim = False
        kind = REASONING if self._state == REASONING else CONTENT
        self._begun |= kind == CONTENT and bool(text.strip())
        return [Delta(kind, text)]

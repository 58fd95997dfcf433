"""Functionary 3.2: >>> and a recipient's line before each part, "all" for what is said."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.formats.base import (
    CALL,
    CONTENT,
    Call,
    Delta,
    Format,
    Function,
    Lark,
    Tools,
    joined,
    new_call_id,
)
from ggq.runtime.formats.json_calls import JsonSpan
from ggq.runtime.formats.rules import Written

__all__ = ["FORMAT"]

_MARK = ">>>"
_WRITTEN = Written(call=("$NAME\n", ""), between=_MARK)


class FunctionaryV32(Format):
    """The prompt ends with the first mark."""

    name = "functionary_v32"
    think = ("", "")

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return f"{_MARK}all" in template

    def parser(self, tools: Tools, thinking: bool, continued: bool = False) -> FunctionaryParser:
        return FunctionaryParser(tools, continued)

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        return _WRITTEN.rules(functions, lark, many)


class FunctionaryParser:
    """Reads one answer."""

    def __init__(self, tools: Tools, continued: bool) -> None:
        self.n_calls = 0
        self._tools, self._held = tools, ""
        self._to: str | None = "all" if continued else None  # None: in a recipient's line
        self._arguments: JsonSpan | None = None
        self._id = ""

    def push(self, text: str) -> list[Delta]:
        """Return what is certain after another piece of text."""
        self._held += text
        out: list[Delta] = []
        while self._step(out):
            pass
        return joined(out)

    def finish(self) -> list[Delta]:
        """Return the rest at the end of the answer."""
        rest, self._held = self._held, ""
        called = self._arguments is not None or (self._to is not None and self._to != "all")
        return [] if called or not rest else [Delta(CONTENT, rest)]

    def _step(self, out: list[Delta]) -> bool:
        if self._to is None:
            return self._header(out)
        if self._arguments is not None:
            n = self._arguments.feed(self._held)
            if n:
                out.append(Delta(CALL, self._held[:n], index=self.n_calls - 1, id=self._id))
            done, self._held = self._arguments.done, self._held[n:]
            self._arguments = None if done else self._arguments
            return done
        at = self._held.find(_MARK)
        if self._to == "all":
            tails = (n for n in (2, 1) if self._held.endswith(_MARK[:n]))
            cut = at if at >= 0 else len(self._held) - next(tails, 0)
            if cut:
                out.append(Delta(CONTENT, self._held[:cut]))
            self._held = self._held[cut:]
        if at < 0:
            return False
        self._held, self._to = self._held[self._held.find(_MARK) + len(_MARK) :], None
        return True

    def _header(self, out: list[Delta]) -> bool:
        """Read a recipient; what is none of the tools has only been said."""
        name, end, rest = self._held.removeprefix(_MARK).partition("\n")
        if not end:
            return False
        if name.strip() in self._tools:
            self._to, self._held, self._arguments = name.strip(), rest, JsonSpan()
            self._id = new_call_id()
            self.n_calls += 1
            begun = Call(name.strip(), "")
            out.append(Delta(CALL, call=begun, index=self.n_calls - 1, id=self._id))
        else:
            self._to, self._held = "all", rest
            if name.strip() != "all":
                out.append(Delta(CONTENT, f"{name}\n"))
        return True


FORMAT = FunctionaryV32()

"""Phi 4 mini: JSON between <|tool_call|> and <|/tool_call|>, one object or a list."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.formats.json_calls import JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written

__all__ = ["FORMAT"]

_MARKS = "<|tool_call|>", "<|/tool_call|>"
_WRITTEN = Written(
    around=(f"{_MARKS[0]}[", f"]{_MARKS[1]}"),
    call=('{"name": "$NAME", "arguments": ', "}"),
    between=", ",
    marks=_MARKS,
)


class Phi(MarkedFormat):
    """Some answers have the word functools for the mark."""

    name = "phi"
    rank = 1  # a template may have Granite's mark, too
    calls = (_MARKS, ("functools[", ""))
    reader = JsonReader
    written = _WRITTEN

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "<|/tool|>" in template or _MARKS[1] in template


FORMAT = Phi()

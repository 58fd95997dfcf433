"""Phi 4 mini: JSON between <|tool_call|> and <|/tool_call|>, one object or a list."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.server.formats.base import Function, Lark
from ggq.runtime.server.formats.json_calls import JsonReader
from ggq.runtime.server.formats.marked import MarkedFormat
from ggq.runtime.server.formats.rules import Written, json_rules

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

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "<|/tool|>" in template or _MARKS[1] in template

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        return json_rules(functions, lark, many, _WRITTEN)


FORMAT = Phi()

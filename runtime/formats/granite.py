"""Granite 3: <|tool_call|> before a list of JSON objects, to the end of the answer."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.formats.json_calls import JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written

__all__ = ["FORMAT"]

_WRITTEN = Written(
    around=("<|tool_call|>[", "]"),
    call=('{"name": "$NAME", "arguments": ', "}"),
    between=", ",
    marks=("<|tool_call|>",),
)


class Granite(MarkedFormat):
    """Thoughts and what is said stand in tags. Its successor, Granite 4, writes as Hermes."""

    name = "granite"
    calls = (("<|tool_call|>", ""),)
    wraps = (("<response>", "</response>"),)
    reader = JsonReader
    written = _WRITTEN

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "<|tool_call|>" in template


FORMAT = Granite()

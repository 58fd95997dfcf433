"""Granite 3: <|tool_call|> before a list of JSON objects, to the end of the answer."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.server.formats.base import Function, Lark
from ggq.runtime.server.formats.hermes import object_rules
from ggq.runtime.server.formats.json_calls import JsonReader
from ggq.runtime.server.formats.marked import MarkedFormat

__all__ = ["FORMAT"]


class Granite(MarkedFormat):
    """Its successor, Granite 4, writes as Hermes."""

    name = "granite"
    calls = (("<|tool_call|>", ""),)
    reader = JsonReader

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "<|tool_call|>" in template

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        more = ' (", " call)*' if many else ""
        opening = lark.mark(self.calls[0][0])
        return [*object_rules(functions, lark), f'calls: {opening} "[" call{more} "]"']


FORMAT = Granite()

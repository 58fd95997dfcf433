"""Mistral: [TOOL_CALLS] before a list of JSON objects, or before name[ARGS]{...}."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from ggq.runtime.server.formats.base import Function, Lark, Tools
from ggq.runtime.server.formats.hermes import object_rules
from ggq.runtime.server.formats.json_calls import NAMED, OBJECT, JsonReader
from ggq.runtime.server.formats.marked import MarkedFormat

__all__ = ["FORMAT"]


class MistralReader(JsonReader):
    """Reads both ways to write a call."""

    def __init__(self, tools: Tools, opening: str, closing: str) -> None:
        super().__init__(tools, opening, closing, (NAMED, OBJECT))


class Mistral(MarkedFormat):
    """Calls go on to the end of the answer."""

    name = "mistral"
    think = ("[THINK]", "[/THINK]")
    calls = (("[TOOL_CALLS]", ""),)
    marks = ("[ARGS]", "[CALL_ID]")
    reader = MistralReader

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "[TOOL_CALLS]" in template

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        more = ' (", " call)*' if many else ""
        opening = lark.mark(self.calls[0][0])
        return [*object_rules(functions, lark), f'calls: {opening} "[" call{more} "]"']

    def call_id(self, given: str) -> str:
        """Return nine letters and digits: the templates insist on them."""
        tail = given[-9:]
        if len(given) == 9 or (given == f"call_{tail}" and tail.isalnum()):
            return tail
        return hashlib.sha256(given.encode("utf-8", "replace")).hexdigest()[:9]


FORMAT = Mistral()

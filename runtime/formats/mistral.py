"""Mistral: [TOOL_CALLS] before a list of JSON objects, and later before each name[ARGS]{...}."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from ggq.runtime.formats.base import Format, Tools
from ggq.runtime.formats.json_calls import NAMED, OBJECT, JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written
from ggq.runtime.formats.thoughts import marks_of

__all__ = ["FORMAT"]

_LIST = Written(
    around=("[TOOL_CALLS][", "]"),
    call=('{"name": "$NAME", "arguments": ', "}"),
    between=", ",
    marks=("[TOOL_CALLS]",),
)
_MARKS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_NAMED = Written(call=("[TOOL_CALLS]$NAME[ARGS]", ""), marks=_MARKS)
_WITH_ID = Written(
    call=("[TOOL_CALLS]$NAME[CALL_ID]$ID[ARGS]", ""), ident="[A-Za-z0-9]{9}", marks=_MARKS
)


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
    written = _LIST

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "[TOOL_CALLS]" in template

    def fitted(self, template: str, tokens: Collection[str]) -> Format:
        written = _NAMED if "[ARGS]" in template else _LIST
        written = _WITH_ID if "[CALL_ID]" in template else written
        return self.changed(written=written, think=marks_of(template, self.think))

    def call_id(self, given: str) -> str:
        """Return nine letters and digits: the templates insist on them."""
        tail = given[-9:]
        if len(given) == 9 or (given == f"call_{tail}" and tail.isalnum()):
            return tail
        return hashlib.sha256(given.encode("utf-8", "replace")).hexdigest()[:9]


FORMAT = Mistral()

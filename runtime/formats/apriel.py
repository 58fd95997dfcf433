"""Apriel: reasoning steps up to [BEGIN FINAL RESPONSE], calls as a list between <tool_calls>."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.formats.json_calls import JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written

__all__ = ["FORMAT"]

_MARKS = "<tool_calls>", "</tool_calls>"
_WRITTEN = Written(
    around=(f"{_MARKS[0]}[", f"]{_MARKS[1]}"),
    call=('{"name": "$NAME", "arguments": ', "}"),
    between=", ",
    marks=_MARKS,
)


class Apriel(MarkedFormat):
    """Its instructions name <tool_call>, too, so that is understood as well."""

    name = "apriel"
    rank = 2  # its templates have the marks of Hermes and MiniMax M1, too
    think = ("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]")
    calls = (_MARKS, ("<tool_call>", "</tool_call>"))
    dropped = ("[END FINAL RESPONSE]",)
    calls_in_thoughts = True
    reader = JsonReader
    written = _WRITTEN

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "[BEGIN FINAL RESPONSE]" in template


FORMAT = Apriel()

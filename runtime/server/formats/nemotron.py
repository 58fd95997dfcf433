"""Nemotron Nano and Super: a list of JSON objects between <TOOLCALL> and </TOOLCALL>."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.server.formats.base import Function, Lark
from ggq.runtime.server.formats.json_calls import JsonReader
from ggq.runtime.server.formats.marked import MarkedFormat
from ggq.runtime.server.formats.rules import Written, json_rules

__all__ = ["FORMAT"]

_MARKS = "<TOOLCALL>", "</TOOLCALL>"
_WRITTEN = Written(
    around=(f"{_MARKS[0]}[", f"]{_MARKS[1]}"),
    call=('{"name": "$NAME", "arguments": ', "}"),
    between=", ",
    marks=_MARKS,
)


class Nemotron(MarkedFormat):
    """Nemotron 3 writes as Qwen 3 Coder."""

    name = "nemotron"
    calls = (_MARKS,)
    reader = JsonReader

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return _MARKS[0] in template

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        return json_rules(functions, lark, many, _WRITTEN)


FORMAT = Nemotron()

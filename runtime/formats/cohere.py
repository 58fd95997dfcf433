"""Command R7B, Command A and their like: a list of JSON objects, and marks around what is said."""

from __future__ import annotations

import re

from ggq.runtime.formats.base import Tools
from ggq.runtime.formats.json_calls import JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written

__all__ = ["FORMAT"]

_MARKS = "<|START_ACTION|>", "<|END_ACTION|>"
_HEAD = (
    re.compile(
        r'[\s,;\[\]]*\{\s*(?:"tool_call_id"\s*:\s*"?\w*"?\s*,\s*)?"(?:tool_)?name"\s*:\s*'
        r'("(?:[^"\\]|\\.)*")\s*,\s*"(?:parameters|arguments)"\s*:\s*(?=\{)'
    ),
    1,
)
_WRITTEN = Written(
    around=(f"{_MARKS[0]}[\n    ", f"\n]{_MARKS[1]}"),
    call=('{"tool_call_id": "$ID", "tool_name": "$NAME", "parameters": ', "}"),
    between=",\n    ",
    marks=_MARKS,
)


class CohereReader(JsonReader):
    """The number of a call is the model's own."""

    def __init__(self, tools: Tools, opening: str, closing: str) -> None:
        super().__init__(tools, opening, closing, (_HEAD,))


class Cohere(MarkedFormat):
    """Citations stay in the text as the model writes them."""

    name = "cohere"
    think = ("<|START_THINKING|>", "<|END_THINKING|>")
    calls = (_MARKS,)
    dropped = ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>")
    calls_in_thoughts = True
    reader = CohereReader
    written = _WRITTEN


FORMAT = Cohere()

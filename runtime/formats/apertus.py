"""Apertus: a list of objects whose one member is the function's name, its value the arguments."""

from __future__ import annotations

import re

from ggq.runtime.formats.base import Tools
from ggq.runtime.formats.json_calls import JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written

__all__ = ["FORMAT"]

_MARKS = "<|tools_prefix|>", "<|tools_suffix|>"
_HEAD = re.compile(r'[\s,;\[\]]*\{\s*("(?:[^"\\]|\\.)*")\s*:\s*(?=\{)'), 1
_WRITTEN = Written(
    around=(f"{_MARKS[0]}[", f"]{_MARKS[1]}"),
    call=('{"$NAME": ', "}"),
    between=", ",
    marks=_MARKS,
)


class ApertusReader(JsonReader):
    """Only names of tools begin a call."""

    def __init__(self, tools: Tools, opening: str, closing: str) -> None:
        super().__init__(tools, opening, closing, (_HEAD,))


class Apertus(MarkedFormat):
    """Calls may come while thoughts are open."""

    name = "apertus"
    think = ("<|inner_prefix|>", "<|inner_suffix|>")
    calls = (_MARKS,)
    calls_in_thoughts = True
    reader = ApertusReader
    written = _WRITTEN


FORMAT = Apertus()

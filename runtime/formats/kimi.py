"""Kimi K2: each call between marks of its own, its name with the number of the call."""

from __future__ import annotations

import re
from collections.abc import Collection

from ggq.runtime.formats.base import Tools
from ggq.runtime.formats.json_calls import JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written

__all__ = ["FORMAT"]

_ALL = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_ONE = "<|tool_call_begin|>", "<|tool_call_end|>"
_SEP = "<|tool_call_argument_begin|>"
_BETWEEN = rf"\s*(?:{re.escape(_ONE[1])})?\s*"
_HEAD = re.compile(
    rf"{_BETWEEN}{re.escape(_ONE[0])}\s*(?:functions\.)?([\w.\-]+?)(?::\d+)?\s*"
    rf"{re.escape(_SEP)}\s*(?=\{{)"
)
_WRITTEN = Written(
    around=_ALL,
    call=(f"{_ONE[0]}functions.$NAME:$ID{_SEP}", _ONE[1]),
    marks=(*_ALL, *_ONE, _SEP),
)


class KimiReader(JsonReader):
    """The number after the name is the model's own id of a call."""

    def __init__(self, tools: Tools, opening: str, closing: str) -> None:
        super().__init__(tools, opening, closing, ((_HEAD, 0),), re.compile(_BETWEEN))


class Kimi(MarkedFormat):
    """Calls may come while thoughts are open."""

    name = "kimi"
    calls = (_ALL,)
    marks = (*_ONE, _SEP)
    calls_in_thoughts = True
    reader = KimiReader
    written = _WRITTEN

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return _ALL[0] in template


FORMAT = Kimi()

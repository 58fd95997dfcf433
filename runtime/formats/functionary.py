"""Functionary 3.1: the name in a tag, the arguments in JSON after it."""

from __future__ import annotations

import re
from collections.abc import Collection

from ggq.runtime.formats.base import Tools
from ggq.runtime.formats.json_calls import JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written

__all__ = ["FORMAT"]

_HEAD = re.compile(r"\s*([\w.\-]+)>\s*(?=\{)"), 0
_WRITTEN = Written(call=("<function=$NAME>", "</function>"), marks=("</function>",))


class FunctionaryReader(JsonReader):
    """Reads from the name on: the mark before it is what opens the call."""

    def __init__(self, tools: Tools, opening: str, closing: str) -> None:
        super().__init__(tools, opening, closing, (_HEAD,), re.compile(r"\s*"))


class Functionary(MarkedFormat):
    """Llama 3.1's own way for tools that are no built-in ones; its tag is no token."""

    name = "functionary"
    calls = (("<function=", "</function>"),)
    reader = FunctionaryReader
    written = _WRITTEN

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        named = re.search(r"<function=\s*['\"]|<function=\w+>\{", template)
        return named is not None and "<parameter=" not in template and "<tool_call>" not in template


FORMAT = Functionary()

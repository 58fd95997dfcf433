"""DeepSeek V3 and R1: each call between marks of its own, all of them between two more."""

from __future__ import annotations

import re
from collections.abc import Collection

from ggq.runtime.server.formats.base import Function, Lark, Tools, literal, one_of
from ggq.runtime.server.formats.hermes import FORMAT as HERMES
from ggq.runtime.server.formats.json_calls import OBJECT, JsonReader
from ggq.runtime.server.formats.marked import MarkedFormat

__all__ = ["FORMAT"]

_ALL = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_ONE = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_SEP = "<｜tool▁sep｜>"
# What stands between calls, and in R1's way the end of the block of code that arguments are in.
_BETWEEN = rf"\s*(?:```)?\s*(?:{_ONE[1]})?\s*"
_V3 = re.compile(rf"{_BETWEEN}{_ONE[0]}\s*([\w.\-]+)\s*{_SEP}\s*(?=\{{)")
_R1 = re.compile(rf"{_BETWEEN}{_ONE[0]}function{_SEP}([\w.\-]+)\s*```json\s*(?=\{{)")


class DeepSeekReader(JsonReader):
    """Reads V3.1's name and arguments, and R1's, which stand in a block of code."""

    def __init__(self, tools: Tools, opening: str, closing: str) -> None:
        heads = ((_R1, 0), (_V3, 0), OBJECT)
        super().__init__(tools, opening, closing, heads, re.compile(_BETWEEN))


class DeepSeek(MarkedFormat):
    """Written as V3.1 does, the later of the two."""

    name = "deepseek"
    calls = (_ALL, *HERMES.calls)  # as tools are explained where the template knows none
    marks = (*_ONE, _SEP)
    reader = DeepSeekReader

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return _ALL[0] in template

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        lines = []
        begin, end, sep = (lark.mark(mark) for mark in (*_ONE, _SEP))
        for i, f in enumerate(functions):
            lines.append(f"call_{i}: {begin} {literal(f.name)} {sep} arguments_{i} {end}")
            lines.append(f"arguments_{i}: {lark.json(f.parameters)}")
        call = one_of(f"call_{i}" for i in range(len(functions)))
        opening, closing = (lark.mark(mark) for mark in _ALL)
        return [*lines, f"calls: {opening} {call}{'+' if many else ''} {closing}"]


FORMAT = DeepSeek()

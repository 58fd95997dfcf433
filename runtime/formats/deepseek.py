"""DeepSeek V3 and R1: each call between marks of its own, all of them between two more."""

from __future__ import annotations

import re
from collections.abc import Collection

from ggq.runtime.formats.base import Format, Tools
from ggq.runtime.formats.hermes import FORMAT as HERMES
from ggq.runtime.formats.json_calls import OBJECT, JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written

__all__ = ["FORMAT"]

_ALL = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_ONE = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_SEP = "<｜tool▁sep｜>"
# What stands between calls, and in R1's way the end of the block of code that arguments are in.
_BETWEEN = rf"\s*(?:```)?\s*(?:{_ONE[1]})?\s*"
_V3 = re.compile(rf"{_BETWEEN}{_ONE[0]}\s*([\w.\-]+)\s*{_SEP}\s*(?=\{{)")
_R1 = re.compile(rf"{_BETWEEN}{_ONE[0]}function{_SEP}([\w.\-]+)\s*```json\s*(?=\{{)")
_MARKS = (*_ALL, *_ONE, _SEP)
_WRITTEN_V3 = Written(around=_ALL, call=(f"{_ONE[0]}$NAME{_SEP}", _ONE[1]), marks=_MARKS)
_WRITTEN_R1 = Written(
    around=_ALL,
    call=(f"{_ONE[0]}function{_SEP}$NAME\n```json\n", f"\n```{_ONE[1]}"),
    between="\n",
    marks=_MARKS,
)


class DeepSeekReader(JsonReader):
    """Reads V3.1's name and arguments, and R1's, which stand in a block of code."""

    def __init__(self, tools: Tools, opening: str, closing: str) -> None:
        heads = ((_R1, 0), (_V3, 0), OBJECT)
        super().__init__(tools, opening, closing, heads, re.compile(_BETWEEN))


class DeepSeek(MarkedFormat):
    """Arguments in a block of code are R1's and V3's way, without one V3.1's."""

    name = "deepseek"
    calls = (_ALL, *HERMES.calls)  # as tools are explained where the template knows none
    marks = (*_ONE, _SEP)
    reader = DeepSeekReader
    written = _WRITTEN_V3

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return _ALL[0] in template

    def fitted(self, template: str, tokens: Collection[str]) -> Format:
        written = _WRITTEN_R1 if "```json" in template else _WRITTEN_V3
        return self.changed(written=written, example=written.example())


FORMAT = DeepSeek()

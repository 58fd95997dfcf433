"""Seed-OSS: Qwen's tags without line ends around the values, between <seed:tool_call> marks."""

from __future__ import annotations

import re

from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written
from ggq.runtime.formats.tagged import Tags, TagsReader

__all__ = ["FORMAT"]

_MARKS = "<seed:tool_call>", "</seed:tool_call>"
_WRITTEN = Written(
    call=(f"{_MARKS[0]}\n<function=$NAME>\n", f"</function>\n{_MARKS[1]}"),
    argument=("<parameter=$KEY>", "</parameter>\n"),
    between="\n",
    marks=_MARKS,
)


class SeedReader(TagsReader):
    """White space around a value belongs to it."""

    tags = Tags(
        function=re.compile(r"\s*<function=([^>\n]+)>\s*"),
        parameter=re.compile(r"\s*<parameter=([^>\n]+)>"),
        end=re.compile(r"\s*</function>"),
        closes=("</parameter>",),
        after=("<parameter=", "</function>", _MARKS[1]),
        line_end=False,
    )


class Seed(MarkedFormat):
    """Values that are no text come as JSON or as Python writes them."""

    name = "seed"
    think = ("<seed:think>", "</seed:think>")
    calls = (_MARKS,)
    reader = SeedReader
    written = _WRITTEN


FORMAT = Seed()

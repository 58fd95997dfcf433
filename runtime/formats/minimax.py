"""MiniMax M2: <invoke name=...> with a <parameter name=...> for each argument."""

from __future__ import annotations

import re

from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written
from ggq.runtime.formats.tagged import Tags, TagsReader

__all__ = ["FORMAT"]

_MARKS = "<minimax:tool_call>", "</minimax:tool_call>"
_WRITTEN = Written(
    around=(f"{_MARKS[0]}\n", _MARKS[1]),
    call=('<invoke name="$NAME">\n', "</invoke>\n"),
    argument=('<parameter name="$KEY">', "</parameter>\n"),
    marks=_MARKS,
)


class MiniMaxReader(TagsReader):
    """All calls of an answer stand between the same marks."""

    tags = Tags(
        function=re.compile(r'\s*<invoke name="?([^">\n]+)"?>\s*'),
        parameter=re.compile(r'\s*<parameter name="?([^">\n]+)"?>'),
        end=re.compile(r"\s*</invoke>"),
        closes=("</parameter>",),
        after=("<parameter name=", "</invoke>", _MARKS[1]),
        line_end=False,
    )


class MiniMax(MarkedFormat):
    """M1 writes JSON between other marks, M3 nests elements."""

    name = "minimax"
    calls = (_MARKS,)
    reader = MiniMaxReader
    written = _WRITTEN


FORMAT = MiniMax()

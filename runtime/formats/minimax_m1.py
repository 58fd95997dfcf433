"""MiniMax M1: JSON objects, one a line, between <tool_calls> and </tool_calls>."""

from __future__ import annotations

from ggq.runtime.formats.json_calls import JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written

__all__ = ["FORMAT"]

_MARKS = "<tool_calls>", "</tool_calls>"
_WRITTEN = Written(
    around=(f"{_MARKS[0]}\n", f"\n{_MARKS[1]}"),
    call=('{"name": "$NAME", "arguments": ', "}"),
    between="\n",
    marks=_MARKS,
)


class MiniMaxM1(MarkedFormat):
    """Its successors write otherwise: see minimax and minimax_m3."""

    name = "minimax_m1"
    calls = (_MARKS,)
    reader = JsonReader
    written = _WRITTEN


FORMAT = MiniMaxM1()

"""Nemotron Nano and Super: a list of JSON objects between <TOOLCALL> and </TOOLCALL>."""

from __future__ import annotations

from ggq.runtime.formats.json_calls import JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written

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
    written = _WRITTEN


FORMAT = Nemotron()

"""Solar Open: messages of thoughts, content and calls, each call with an id of the model's own."""

from __future__ import annotations

import re
from collections.abc import Collection

from ggq.runtime.formats.base import Tools
from ggq.runtime.formats.json_calls import JsonReader
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written

__all__ = ["FORMAT"]

_ALL = "<|tool_calls|>", "<|calls|>"
_BEGIN, _NAME, _ARGUMENTS, _END = (
    f"<|tool_call:{word}|>" for word in ("begin", "name", "args", "end")
)
_BETWEEN = rf"\s*(?:{re.escape(_END)})?\s*"
_HEAD = re.compile(
    rf"{_BETWEEN}{re.escape(_BEGIN)}[^<]*{re.escape(_NAME)}\s*([\w.\-]+)\s*"
    rf"{re.escape(_ARGUMENTS)}\s*(?=\{{)"
)
_WRITTEN = Written(
    around=_ALL,
    call=(f"{_BEGIN}$ID{_NAME}$NAME{_ARGUMENTS}", _END),
    ident=r"[A-Za-z0-9_\-]{1,32}",
    marks=(*_ALL, _BEGIN, _NAME, _ARGUMENTS, _END),
)


class SolarReader(JsonReader):
    """The model's ids are not those of the answer: each call gets a new one."""

    def __init__(self, tools: Tools, opening: str, closing: str) -> None:
        super().__init__(tools, opening, closing, ((_HEAD, 0),), re.compile(_BETWEEN))


class Solar(MarkedFormat):
    """An answer is up to three messages; the first one's role is in the prompt."""

    name = "solar"
    think = ("<|think|>", "<|end|>")
    calls = (_ALL,)
    dropped = ("<|begin|>assistant", "<|content|>", "<|end|>", "<|flush|>")
    marks = ("<|begin|>", _BEGIN, _NAME, _ARGUMENTS, _END)
    reader = SolarReader
    written = _WRITTEN

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return _BEGIN in template


FORMAT = Solar()

"""Hermes, Qwen 2.5 and 3 and many more: JSON between <tool_call> and </tool_call>."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written
from ggq.runtime.formats.tagged import TaggedReader

__all__ = ["FORMAT"]

_WRITTEN = Written(
    call=('<tool_call>\n{"name": "$NAME", "arguments": ', "}\n</tool_call>"),
    between="\n",
    marks=("<tool_call>", "</tool_call>"),
)


class Hermes(MarkedFormat):
    """Read and written with JSON; calls in Qwen's tags are understood as well."""

    name = "hermes"
    reader = TaggedReader
    written = _WRITTEN

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "<tool_call>" in template


FORMAT = Hermes()

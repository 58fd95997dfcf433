"""Qwen 3 Coder and Qwen 3.5: calls in tags between <tool_call> and </tool_call>."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.rules import Written
from ggq.runtime.formats.tagged import TaggedReader

__all__ = ["FORMAT"]

_WRITTEN = Written(
    call=("<tool_call>\n<function=$NAME>\n", "</function>\n</tool_call>"),
    argument=("<parameter=$KEY>\n", "\n</parameter>\n"),
    between="\n",
    marks=("<tool_call>", "</tool_call>"),
)


class Qwen(MarkedFormat):
    """Tags for the function and each argument; JSON is understood as well."""

    name = "qwen"
    rank = 1  # its templates have Hermes' marks too
    reader = TaggedReader
    written = _WRITTEN

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "<tool_call>" in template and "<function=" in template


FORMAT = Qwen()

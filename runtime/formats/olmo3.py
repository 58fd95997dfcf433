"""OLMo 3: calls as Python writes them, one a line, between <function_calls> marks."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.formats.base import Function, Lark
from ggq.runtime.formats.lfm2 import PythonReader, python_rules
from ggq.runtime.formats.marked import MarkedFormat

__all__ = ["FORMAT"]


class Olmo3(MarkedFormat):
    """Values are Python's literals, as LFM2's."""

    name = "olmo3"
    calls = (("<function_calls>", "</function_calls>"),)
    reader = PythonReader

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return self.calls[0][0] in template

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        lines, call = python_rules(functions, lark)
        opening, closing = (lark.mark(mark) for mark in self.calls[0])
        more = f' ("\\n" {call})*' if many else ""
        return [*lines, f"calls: {opening} {call}{more} {closing}"]


FORMAT = Olmo3()

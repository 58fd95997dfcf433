"""Hermes, Qwen 2.5 and 3 and many more: JSON between <tool_call> and </tool_call>."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.server.formats.base import Function, Lark, literal, one_of
from ggq.runtime.server.formats.marked import MarkedFormat
from ggq.runtime.server.formats.tagged import TaggedReader

__all__ = ["FORMAT", "object_rules"]


def object_rules(functions: list[Function], lark: Lark, member: str = "arguments") -> list[str]:
    """Return rules of which ``call`` is a JSON object with a name and the arguments in ``member``.

    The arguments' schema is a rule of its own, so that its references stay what they are.
    """
    lines = []
    for i, f in enumerate(functions):
        head = literal(f'{{"name": {literal(f.name)}, {literal(member)}: ')
        lines.append(f'call_{i}: {head} arguments_{i} "}}"')
        lines.append(f"arguments_{i}: {lark.json(f.parameters)}")
    return [*lines, f"call: {one_of(f'call_{i}' for i in range(len(functions)))}"]


class Hermes(MarkedFormat):
    """Read and written with JSON; calls in Qwen's tags are understood as well."""

    name = "hermes"
    reader = TaggedReader

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "<tool_call>" in template

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        opening, closing = (lark.mark(mark) for mark in self.calls[0])
        more = ' ("\\n" one)*' if many else ""
        lines = object_rules(functions, lark)
        return [*lines, f'one: {opening} "\\n" call "\\n" {closing}', f"calls: one{more}"]


FORMAT = Hermes()

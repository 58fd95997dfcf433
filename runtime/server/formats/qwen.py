"""Qwen 3 Coder and Qwen 3.5: calls in tags between <tool_call> and </tool_call>."""

from __future__ import annotations

from collections.abc import Collection

from ggq.runtime.server.formats.base import Function, Lark, literal, one_of
from ggq.runtime.server.formats.marked import MarkedFormat
from ggq.runtime.server.formats.tagged import TaggedReader, argument_rules

__all__ = ["FORMAT"]

_TEXT = 'text[suffix="\\n</parameter>\\n"]: /(?s:.*)/'


class Qwen(MarkedFormat):
    """Tags for the function and each argument; JSON is understood as well."""

    name = "qwen"
    rank = 1  # its templates have Hermes' marks too
    reader = TaggedReader

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "<tool_call>" in template and "<function=" in template

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        """Return rules whose arguments come in the schema's order, as the model was shown them."""
        opening, closing = (lark.mark(mark) for mark in self.calls[0])
        lines = [_TEXT]
        for i, f in enumerate(functions):
            required = f.parameters.get("required") or ()
            parts = [literal(f"<function={f.name}>\n")]
            for j, key in enumerate(f.parameters.get("properties") or {}):
                tags = f"<parameter={key}>\n", "\n</parameter>\n"
                lines += argument_rules(f"argument_{i}_{j}", key, f.parameters, lark, tags)
                parts.append(f"argument_{i}_{j}{'' if key in required else '?'}")
            lines.append(f"call_{i}: {' '.join(parts)} {literal('</function>')}")
        call = one_of(f"call_{i}" for i in range(len(functions)))
        more = ' ("\\n" one)*' if many else ""
        return [*lines, f'one: {opening} "\\n" {call} "\\n" {closing}', f"calls: one{more}"]


FORMAT = Qwen()

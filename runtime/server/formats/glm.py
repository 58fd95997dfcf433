"""GLM 4.5 to 4.7 and their like: <tool_call>name, then <arg_key> and <arg_value> in pairs."""

from __future__ import annotations

import re
from collections.abc import Collection

from ggq.runtime.server.formats.base import Function, Lark, literal, one_of
from ggq.runtime.server.formats.marked import MarkedFormat
from ggq.runtime.server.formats.tagged import Tags, TagsReader, argument_rules

__all__ = ["FORMAT"]


class GlmReader(TagsReader):
    """Reads the name's line and the pairs after it."""

    tags = Tags(
        function=re.compile(r"\s*([^\s<]+)\s*(?=<arg_key>|</tool_call>)"),
        parameter=re.compile(r"\s*<arg_key>(.*?)</arg_key>\s*<arg_value>", re.DOTALL),
        end=None,
        closes=("</arg_value>",),
        after=("<arg_key>", "</tool_call>"),
        line_end=False,
    )


class Glm(MarkedFormat):
    """A call is the text between the marks."""

    name = "glm"
    rank = 1  # its templates have Hermes' marks too
    reader = GlmReader

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "<tool_call>" in template and "<arg_key>" in template

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        opening, closing = (lark.mark(mark) for mark in self.calls[0])
        lines = ['text[suffix="</arg_value>\\n"]: /(?s:.*)/']
        for i, f in enumerate(functions):
            required = f.parameters.get("required") or ()
            parts = [literal(f"{f.name}\n")]
            for j, key in enumerate(f.parameters.get("properties") or {}):
                tags = f"<arg_key>{key}</arg_key>\n<arg_value>", "</arg_value>\n"
                lines += argument_rules(f"argument_{i}_{j}", key, f.parameters, lark, tags)
                parts.append(f"argument_{i}_{j}{'' if key in required else '?'}")
            lines.append(f"call_{i}: {' '.join(parts)}")
        call = one_of(f"call_{i}" for i in range(len(functions)))
        more = ' ("\\n" one)*' if many else ""
        return [*lines, f"one: {opening} {call} {closing}", f"calls: one{more}"]


FORMAT = Glm()

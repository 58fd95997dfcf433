"""Qwen 3 Coder and Qwen 3.5: calls in tags between <tool_call> and </tool_call>."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from ggq.runtime.server.formats.base import Function, Lark, literal, one_of
from ggq.runtime.server.formats.marked import MarkedFormat
from ggq.runtime.server.formats.tagged import TaggedReader
from ggq.runtime.server.formats.values import is_text

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
                lines += _argument(f"argument_{i}_{j}", key, f.parameters, lark)
                parts.append(f"argument_{i}_{j}{'' if key in required else '?'}")
            lines.append(f"call_{i}: {' '.join(parts)} {literal('</function>')}")
        call = one_of(f"call_{i}" for i in range(len(functions)))
        more = ' ("\\n" one)*' if many else ""
        return [*lines, f'one: {opening} "\\n" {call} "\\n" {closing}', f"calls: one{more}"]


def _argument(name: str, key: str, schema: Mapping[str, Any], lark: Lark) -> list[str]:
    head = literal(f"<parameter={key}>\n")
    part = schema["properties"][key]
    if is_text(schema, key) and not {"enum", "const", "pattern"} & set(part):
        return [f"{name}: {head} text"]
    if isinstance(part, Mapping) and part.get("type") == "string" and "enum" in part:
        words = [literal(str(word)) for word in part["enum"]]
        return [f'{name}: {head} {one_of(words)} "\\n</parameter>\\n"']
    value = lark.json(_standing_alone(schema, key))
    return [f'{name}: {head} {name}_value "\\n</parameter>\\n"', f"{name}_value: {value}"]


def _standing_alone(schema: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a property's schema whose references into the whole one still lead there."""
    whole = json.loads(json.dumps(schema), object_hook=_moved)
    place = key.replace("~", "~0").replace("/", "~1")
    return {"$ref": f"#/$defs/whole/properties/{place}", "$defs": {"whole": whole}}


def _moved(part: dict[str, Any]) -> dict[str, Any]:
    target = part.get("$ref")
    if isinstance(target, str) and target.startswith("#"):
        return {**part, "$ref": f"#/$defs/whole{target[1:]}"}
    return part


FORMAT = Qwen()

"""Lark rules of calls: arguments in JSON, or each one between tags.

It knows schemas and Lark; a format says what stands around.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ggq.runtime.formats.base import Function, Lark, literal, one_of
from ggq.runtime.formats.values import property_schema, resolved, types_of

__all__ = ["Written", "json_rules", "listed", "standing_alone", "tag_rules"]

_TEXT = "/(?s:.*)/"


@dataclass(frozen=True)
class Written:
    """How calls are written: what is ``around`` them, ``between`` two, ``call`` around arguments.

    $NAME stands for the function's name, $ID for an identifier, of which ``ident`` is the pattern.
    ``argument``: what stands around a value in tags: $KEY its name, $TEXT whether it is a string
    (true or false), $TYPE its type's name. ``marks``: control tokens in all of these.
    """

    call: tuple[str, str]
    around: tuple[str, str] = ("", "")
    between: str = ""
    argument: tuple[str, str] = ("", "")
    ident: str = "[0-9]+"
    marks: tuple[str, ...] = ()

    def example(self) -> str:
        """Return a call as it is explained to a model."""
        head, tail = self.call
        call = f"{head.replace('$NAME', '<function-name>')}<args-json-object>{tail}"
        return f"{self.around[0]}{call}{self.around[1]}"

    def spelled(self, calls: list[dict[str, Any]]) -> str:
        """Return calls with arguments in JSON as text, "" where they are written otherwise."""
        head, tail = self.call
        if any(self.argument) or "$ID" in head + tail or "$NAME" not in head:
            return ""
        said = (json.dumps(call["arguments"], ensure_ascii=False) for call in calls)
        heads = (head.replace("$NAME", call["name"]) for call in calls)
        texts = [f"{before}{text}{tail}" for before, text in zip(heads, said, strict=True)]
        return f"{self.around[0]}{self.between.join(texts)}{self.around[1]}"

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        """Return the rules of calls that are written like this: one, or ``many``."""
        make = tag_rules if any(self.argument) else json_rules
        return make(functions, lark, many, self)

    def part(self, lark: Lark, text: str, **names: str) -> str:
        """Return a part of the rules: text, marks by their numbers, a pattern for $ID."""
        for word, name in names.items():
            text = text.replace(f"${word}", name)
        pieces = (lark.spelled(piece, self.marks) for piece in text.split("$ID"))
        return f" /{self.ident}/ ".join(pieces)

    def calls(self, lark: Lark, n: int, many: bool) -> list[str]:
        """Return the rule ``calls`` of n functions' rules call_0, call_1, ..."""
        opening, closing = (self.part(lark, text) for text in self.around)
        more = f" ({self.part(lark, self.between)} call)*" if many else ""
        call = one_of(f"call_{i}" for i in range(n))
        return [f"call: {call}", f"calls: {opening} call{more} {closing}"]


def json_rules(functions: list[Function], lark: Lark, many: bool, written: Written) -> list[str]:
    """Return rules of calls whose arguments are one JSON object.

    The arguments' schema is a rule of its own, so that its references stay what they are.
    """
    lines = []
    for i, f in enumerate(functions):
        head, tail = (written.part(lark, text, NAME=f.name) for text in written.call)
        lines.append(f"call_{i}: {head} arguments_{i} {tail}")
        lines.append(f"arguments_{i}: {lark.json(f.parameters)}")
    return [*lines, *written.calls(lark, len(functions), many)]


def tag_rules(functions: list[Function], lark: Lark, many: bool, written: Written) -> list[str]:
    """Return rules of calls with each argument between tags, in the schema's order.

    That is the order in which the model was shown them.
    """
    lines = [_text(lark, written)]
    for i, f in enumerate(functions):
        required = f.parameters.get("required") or ()
        head, end = (written.part(lark, text, NAME=f.name) for text in written.call)
        parts = [head]
        for j, key in enumerate(f.parameters.get("properties") or {}):
            lines += _argument(f"argument_{i}_{j}", key, f.parameters, lark, written)
            parts.append(f"argument_{i}_{j}{'' if key in required else '?'}")
        lines.append(f"call_{i}: {' '.join(parts)} {end}")
    return [*lines, *written.calls(lark, len(functions), many)]


def _text(lark: Lark, written: Written) -> str:
    """Return the rule of free text and what stands after it, which ends it where it first comes."""
    closing = written.argument[1]
    controls = [m for m in written.marks if m in closing and lark.mark(m) != literal(m)]
    if not controls:
        return f"text[suffix={literal(closing)}]: {_TEXT}"
    # No text holds a control token, but it does hold what stands before that.
    at = min(closing.index(mark) for mark in controls)
    before = re.escape(closing[:at]).replace("/", r"\/")
    return f"text: /(?s:.*){before}/ {written.part(lark, closing[at:])}"


def _argument(
    name: str, key: str, schema: Mapping[str, Any], lark: Lark, written: Written
) -> list[str]:
    """Return the rules of an argument; rule ``text`` is free text and what stands after it."""
    part = property_schema(schema, key)
    part = resolved(part, schema) if isinstance(part, Mapping) else {}
    types = types_of(part, schema) or set()
    text = "string" in types
    named = "string" if text else min(types, default="object").replace("integer", "number")
    kind = {"TEXT": str(types == {"string"}).lower(), "TYPE": named}
    opening, closing = written.argument
    head = written.part(lark, opening, **kind, KEY=key)
    tail = written.part(lark, closing)
    if "enum" in part or "const" in part:
        words = part.get("enum", [part.get("const")])
        choices = [literal(w if isinstance(w, str) else literal(w)) for w in words]
        return [f"{name}: {head} {one_of(choices)} {tail}"]
    if text and "pattern" in part:
        return [f"{name}: {head} {name}_value {tail}", f"{name}_value: {_pattern(part['pattern'])}"]
    if text:
        return [f"{name}: {head} text"]
    value = lark.json(standing_alone(schema, key))
    return [f"{name}: {head} {name}_value {tail}", f"{name}_value: {value}"]


def _pattern(pattern: str) -> str:
    """Return a schema's pattern as Lark's: there it is the whole text, not a part of it."""
    before = "" if pattern.startswith("^") else "(?s:.*)"
    after = "" if pattern.endswith("$") else "(?s:.*)"
    inside = pattern.removeprefix("^").removesuffix("$").replace("/", r"\/")
    return f"/{before}(?:{inside}){after}/"


def listed(rules: Mapping[str, str], required: Collection[str], comma: str = ", ") -> str:
    """Return arguments with commas between: those required first, then any of the others."""
    between = literal(comma)
    needed = [rule for key, rule in rules.items() if key in required]
    others = [rule for key, rule in rules.items() if key not in required]
    rest = [f"({between} {rule})?" for rule in others]
    if needed:
        return " ".join([f" {between} ".join(needed), *rest])
    choices = [" ".join([rule, *rest[i + 1 :]]) for i, rule in enumerate(others)]
    return f"({' | '.join(choices)})?" if choices else ""


def standing_alone(schema: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a property's schema whose references into the whole one still lead there."""
    whole = json.loads(json.dumps(schema), object_hook=_moved)
    place = key.replace("~", "~0").replace("/", "~1")
    return {"$ref": f"#/$defs/whole/properties/{place}", "$defs": {"whole": whole}}


def _moved(part: dict[str, Any]) -> dict[str, Any]:
    target = part.get("$ref")
    if isinstance(target, str) and target.startswith("#"):
        return {**part, "$ref": f"#/$defs/whole{target[1:]}"}
    return part

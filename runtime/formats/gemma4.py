"""Gemma 4: call:name{key:value,...} with texts between marks instead of quotes.

Values become JSON while they come: a text flows, numbers and words wait for what follows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from ggq.runtime.formats.base import Delta, Function, Lark, Tools, literal, one_of
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.reader import Reader, begin, content, more
from ggq.runtime.formats.rules import listed
from ggq.runtime.formats.values import resolved, types_of

__all__ = ["FORMAT"]

_MARKS = "<|tool_call>", "<tool_call|>"
_QUOTE = '<|"|>'
_HEAD = re.compile(r"\s*call:\s*([\w.\-]+)\s*(?=\{)")
_KEY = re.compile(r'\s*([^\s,:{}\[\]<"]+)\s*(?=:)')
_WORD = re.compile(r'\s*([^,{}\[\]<"]*[^\s,{}\[\]<"])\s*(?=[,}\]])')
_QUOTED = re.compile(r'\s*("(?:[^"\\]|\\.)*")')
_DEPTH = 8  # schemas that refer to themselves are any value from there on


class GemmaReader(Reader):
    """Reads one call."""

    def __init__(self, tools: Tools, opening: str, closing: str) -> None:
        super().__init__(tools, opening, closing)
        self._open: list[str] | None = None  # braces and brackets, None outside of a call
        self._in_text = False
        self._at_key = False

    def finish(self) -> list[Delta]:
        held, self._held = self._held, ""
        if self._in_text:
            marks = range(len(_QUOTE) - 1, 0, -1)
            partial = next((n for n in marks if held.endswith(_QUOTE[:n])), 0)
            return [more(json.dumps(held[: len(held) - partial], ensure_ascii=False)[1:-1])]
        if self._open is None and (held.strip() or not self._begun):
            return [content(("" if self._begun else self._opening) + held)]
        return []

    def _step(self, out: list[Delta]) -> bool:
        if self._in_text:
            return self._text(out)
        return self._outside(out) if self._open is None else self._inside(self._open, out)

    def _outside(self, out: list[Delta]) -> bool:
        match = _HEAD.match(self._held)
        if match and match.group(1) in self.tools:
            self._open, self._begun, self._held = [], True, self._held[match.end() :]
            out.append(begin(match.group(1)))
            return True
        at = self._held.find(self._closing)
        if at < 0:
            return False
        if not self._begun or self._held[:at].strip():
            opening = "" if self._begun else self._opening
            out.append(content(opening + self._held[:at] + self._closing))
        self._end(at)
        return True

    def _text(self, out: list[Delta]) -> bool:
        at = self._held.find(_QUOTE)
        marks = range(len(_QUOTE) - 1, 0, -1)
        partial = next((n for n in marks if self._held.endswith(_QUOTE[:n])), 0)
        text = self._held[:at] if at >= 0 else self._held[: len(self._held) - partial]
        if text:
            out.append(more(json.dumps(text, ensure_ascii=False)[1:-1]))
        self._held = self._held[len(text) :]
        if at < 0:
            return False
        self._held, self._in_text = self._held[len(_QUOTE) :], False
        out.append(more('"'))
        return True

    def _inside(self, around: list[str], out: list[Delta]) -> bool:
        """Take what comes next in a call: a text, a key, a value, or what stands between these."""
        self._held = self._held.lstrip()
        if self._held.startswith(_QUOTE):
            self._held, self._in_text = self._held[len(_QUOTE) :], True
            out.append(more('"'))
            return True
        if match := (_KEY if self._at_key else _WORD).match(self._held) or _QUOTED.match(
            self._held
        ):
            self._held = self._held[match.end() :]
            word = match.group(1)
            quoted = word.startswith('"') or (not self._at_key and _is_json(word))
            out.append(more(word if quoted else json.dumps(word, ensure_ascii=False)))
            return True
        if not self._held or self._held[0] not in ",:{}[]":
            return False
        mark, self._held = self._held[0], self._held[1:]
        if mark in "{[":
            around.append(mark)
        elif mark in "}]":
            around[-1:] = []
        self._at_key = mark in "{," and bool(around) and around[-1] == "{"
        out.append(more(f"{mark} " if mark in ",:" else mark))
        if not around:
            self._open = None
        return True


class Gemma4(MarkedFormat):
    """Thoughts are a channel; a prompt without them holds an empty one."""

    name = "gemma4"
    think = ("<|channel>thought\n", "<channel|>")
    calls = (_MARKS,)
    marks = ("<|channel>", _QUOTE)
    reader = GemmaReader

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return _MARKS[0] in template

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        """Return rules whose members come in the order of their names, as templates write them."""
        lines: list[str] = []
        for i, f in enumerate(functions):
            rules = _Values(f.parameters, f"v{i}", lark)
            inside = rules.members(f.parameters, 0)
            head = lark.spelled(f"{_MARKS[0]}call:{f.name}{{", _MARKS)
            lines += [*rules.lines, f'call_{i}: {head} {inside} "}}" {lark.mark(_MARKS[1])}']
        call = one_of(f"call_{i}" for i in range(len(functions)))
        return [*_any_value(lark), *lines, f"one: {call}", f"calls: one{'+' if many else ''}"]


class _Values:
    """Writes the rules of values under a schema."""

    def __init__(self, root: Mapping[str, Any], name: str, lark: Lark) -> None:
        self.lines: list[str] = []
        self._root, self._name, self._lark = root, name, lark

    def members(self, schema: Mapping[str, Any], depth: int) -> str:
        """Return the members of an object, in order, with commas between."""
        properties = schema.get("properties") or {}
        rules = {}
        for key in sorted(properties, key=str.lower):
            rules[key] = f"{self._name}_{len(self.lines)}"
            self.lines.append("")
            at = len(self.lines) - 1
            value = self.value(properties[key], depth + 1)
            self.lines[at] = f"{rules[key]}: {literal(f'{key}:')} {value}"
        return listed(rules, schema.get("required") or (), ",")

    def value(self, part: Any, depth: int) -> str:
        """Return the expression of a value; what grammars of values do not know is any value."""
        part = resolved(part, self._root) if isinstance(part, Mapping) else {}
        quote = self._lark.mark(_QUOTE)
        if "enum" in part or "const" in part:
            words = part.get("enum", [part.get("const")])
            texts = (f"{quote} {literal(w)} {quote}" for w in words if isinstance(w, str))
            others = (literal(literal(w)) for w in words if not isinstance(w, str))
            return one_of([*texts, *others])
        types = types_of(part, self._root)
        if types is None or depth > _DEPTH:
            return "any"
        plain = {"string": "text", "integer": "integer", "number": "number", "boolean": "truth"}
        found = [plain[kind] for kind in sorted(types & plain.keys())]
        found += ['"null"'] * ("null" in types)
        if "array" in types:
            item = self.value(part["items"], depth + 1) if "items" in part else "any"
            found.append(f'"[" ({item} ("," {item})*)? "]"')
        if "object" in types:
            inside = self.members(part, depth) if part.get("properties") else "any_members"
            found.append(f'"{{" {inside} "}}"')
        return one_of(found) if found else "any"


def _any_value(lark: Lark) -> list[str]:
    quote = lark.mark(_QUOTE)
    text = f"text: {quote} /(?s:.*)/ {quote}"
    if not quote.startswith("<["):
        text = f"text: {quote} rest\nrest[suffix={quote}]: /(?s:.*)/"
    return [
        text,
        "integer: /-?(0|[1-9][0-9]*)/",
        r"number: /-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/",
        'truth: "true" | "false"',
        'any: text | number | truth | "null" | "[" (any ("," any)*)? "]" | "{" any_members "}"',
        'any_members: (member ("," member)*)?',
        'member: /[A-Za-z_][A-Za-z0-9_.-]*/ ":" any',
    ]


def _is_json(word: str) -> bool:
    try:
        json.loads(word)
    except ValueError:
        return False
    return True


FORMAT = Gemma4()

"""MiniMax M3: elements inside of elements, each tag after the mark of its name space.

An argument is an element; objects are elements of their members, lists elements called item. What
a text or an empty element stands for, the tool's schema says. Texts come while they are written,
other values once they are complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ggq.runtime.formats.base import Delta, Function, Lark, Tools, literal, one_of
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.reader import Reader, begin, content, more
from ggq.runtime.formats.values import property_schema, resolved, typed, types_of

__all__ = ["FORMAT"]

_NS = "]<]minimax[>["
_MARKS = f"{_NS}<tool_call>", f"{_NS}</tool_call>"
_THINK = "<mm:think>", "</mm:think>"
_TAG = re.compile(re.escape(_NS) + r"<(/?)([^<>\n]{1,256})>")
_INVOKE = re.compile(r'invoke name="([^"]+)"')
_DEPTH = 8  # schemas that refer to themselves are any value from there on


@dataclass
class _Element:
    """An element that is open: its schema, as what it has begun to be written, and its text."""

    schema: Any
    kind: str = ""  # object, array or text; "" is not known yet
    n_inside: int = 0
    text: list[str] = field(default_factory=list)


class MiniMaxM3Reader(Reader):
    """Reads calls; all of an answer stand between the same marks."""

    def __init__(self, tools: Tools, opening: str, closing: str) -> None:
        super().__init__(tools, opening, closing)
        self._root: Mapping[str, Any] = {}
        self._open: list[_Element] = []  # the call in work, and the elements in it

    def finish(self) -> list[Delta]:
        out: list[Delta] = []
        if not self._begun:
            out.append(content(self._opening + self._held))
        elif self._open:
            texts_end = self._held.find(_NS[:2]) if not _TAG.match(self._held) else 0
            self._text(out, self._held if texts_end < 0 else self._held[:texts_end])
            while self._open:
                if self._is_cut():  # a value that says nothing yet: JSON that is cut as well
                    self._open = []
                    break
                self._close(out)
        self._held = ""
        return out

    def _is_cut(self) -> bool:
        last = self._open[-1]
        return (
            not last.kind and len(self._open) > 1 and not _is_of(last.schema, self._root, "string")
        )

    def _step(self, out: list[Delta]) -> bool:
        at = self._held.find(_NS)
        if at < 0:
            keep = _overlap(self._held)
            text, self._held = (
                self._held[: len(self._held) - keep],
                self._held[len(self._held) - keep :],
            )
            if not self._open and not self._begun:
                self._held = text + self._held  # no call yet: it may all be content
                return False
            self._text(out, text)
            return False
        if self._held.startswith(self._closing, at) and not self._open:
            said = self._held[:at]
            if not self._begun:
                out.append(content(self._opening + said + self._closing))
            self._end(at)
            return True
        match = _TAG.match(self._held, at)
        if match is None:
            tail = self._held[at + len(_NS) :]
            if re.fullmatch(r"(<[^<>\n]{0,256})?", tail):
                if self._open:
                    self._text(out, self._held[:at])
                    self._held = self._held[at:]
                return False
            self._text(out, self._held[: at + len(_NS)])  # the mark without a tag: text
            self._held = tail
            return bool(self._open)
        invoke = _INVOKE.fullmatch(match[2])
        if not self._open and not (invoke and invoke[1] in self.tools):
            return self._skip(out)
        self._text(out, self._held[:at])
        self._held = self._held[match.end() :]
        if not self._open:
            assert invoke is not None
            self._root = self.tools[invoke[1]]
            self._open, self._begun = [_Element(self._root, "object")], True
            out += [begin(invoke[1]), more("{")]
        elif match[1]:
            self._close(out)
        else:
            self._begin_element(out, match[2])
        return True

    def _skip(self, out: list[Delta]) -> bool:
        """Pass by what is no call, up to the closing mark."""
        at = self._held.find(self._closing)
        if at < 0:
            return False
        if not self._begun:
            out.append(content(self._opening + self._held[:at] + self._closing))
        self._end(at)
        return True

    def _text(self, out: list[Delta], text: str) -> None:
        """Take a piece of the innermost element's text."""
        if not text or len(self._open) < 2:
            return
        last = self._open[-1]
        if not last.kind and _is_of(last.schema, self._root, "string", alone=True):
            last.kind = "text"
            out.append(more('"'))
        if last.kind == "text":
            out.append(more(_json(text)[1:-1]))
        else:
            last.text.append(text)

    def _begin_element(self, out: list[Delta], name: str) -> None:
        parent = self._open[-1]
        if not parent.kind:
            parent.kind = "array" if self._is_list(parent.schema, name) else "object"
            out.append(more("[" if parent.kind == "array" else "{"))
        if parent.n_inside:
            out.append(more(", "))
        parent.n_inside += 1
        schema = _part(parent.schema, name, parent.kind, self._root)
        if parent.kind == "object":
            out.append(more(f"{_json(name)}: "))
        self._open.append(_Element(schema))

    def _is_list(self, schema: Any, name: str) -> bool:
        types = types_of(schema, self._root)
        return name == "item" if types is None else "array" in types and name == "item"

    def _close(self, out: list[Delta]) -> None:
        done = self._open.pop()
        if done.kind == "text":
            out.append(more('"'))
        elif done.kind:
            out.append(more("]" if done.kind == "array" else "}"))
        else:
            out.append(more(_json(self._value("".join(done.text), done.schema))))

    def _value(self, text: str, schema: Any) -> Any:
        """Return what an element without elements stands for."""
        types = types_of(schema, self._root)
        if not text.strip() and types and "string" not in types:
            return [] if "array" in types else {} if "object" in types else None
        shared = {name: self._root[name] for name in ("$defs", "definitions") if name in self._root}
        return typed(text, {**shared, "properties": {"it": schema}}, "it")


def _is_of(schema: Any, root: Mapping[str, Any], kind: str, alone: bool = False) -> bool:
    """Return whether values may be of a type, or are of no other one."""
    types = types_of(schema, root)
    return types == {kind} if alone else types is None or kind in types


def _part(schema: Any, name: str, kind: str, root: Mapping[str, Any]) -> Any:
    """Return the schema of a member of an object, or of an item of a list."""
    found = resolved(schema, root) if isinstance(schema, Mapping) else {}
    return found.get("items") if kind == "array" else property_schema(found, name)


def _overlap(text: str) -> int:
    """Return how many last characters may begin the mark of the name space."""
    sizes = range(min(len(_NS) - 1, len(text)), 0, -1)
    return next((n for n in sizes if _NS.startswith(text[-n:])), 0)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class MiniMaxM3(MarkedFormat):
    """An answer without thoughts begins with the mark that closes them."""

    name = "minimax_m3"
    rank = 2  # its templates have the tags of others, too
    think = _THINK
    calls = (_MARKS,)
    dropped = (_THINK[1],)
    marks = (_NS, "<tool_call>", "</tool_call>")
    reader = MiniMaxM3Reader

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return _NS in template and "invoke name=" in template

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        """Return rules whose elements come in the schemas' order."""
        space, lines = lark.mark(_NS), _texts(lark)
        for i, f in enumerate(functions):
            rules = _Values(f.parameters, f"v{i}", lark)
            inside = rules.members(f.parameters, 0)
            opening = literal(f'<invoke name="{f.name}">')
            closing = literal("</invoke>\n")
            lines += rules.lines
            lines.append(f"call_{i}: {space} {opening} {inside} {space} {closing}")
        call = one_of(f"call_{i}" for i in range(len(functions)))
        around = [f"{space} {lark.mark(mark)}" for mark in ("<tool_call>", "</tool_call>")]
        more_calls = "+" if many else ""
        return [*lines, f"one: {call}", f'calls: {around[0]} "\\n" one{more_calls} {around[1]}']


class _Values:
    """Writes the rules of elements under a schema."""

    def __init__(self, root: Mapping[str, Any], name: str, lark: Lark) -> None:
        self.lines: list[str] = []
        self._root, self._name, self._lark = root, name, lark

    def members(self, schema: Mapping[str, Any], depth: int) -> str:
        """Return the elements of an object's members, in order, those not required optional."""
        found, required = [], schema.get("required") or ()
        for key, part in (schema.get("properties") or {}).items():
            rule = f"{self._name}_{len(self.lines)}"
            self.lines.append("")
            at = len(self.lines) - 1
            self.lines[at] = f"{rule}: {self._element(key, part, depth + 1)}"
            found.append(rule if key in required else f"{rule}?")
        return " ".join(found)

    def _element(self, key: str, part: Any, depth: int) -> str:
        """Return an element; the mark before its closing tag ends its text."""
        space = self._lark.mark(_NS)
        part = resolved(part, self._root) if isinstance(part, Mapping) else {}
        types = types_of(part, self._root) or {"string"}
        head, tail = f"{space} {literal(f'<{key}>')}", literal(f"</{key}>")
        if "enum" in part or "const" in part:
            words = part.get("enum", [part.get("const")])
            texts = [literal(w if isinstance(w, str) else literal(w)) for w in words]
            return f"{head} {one_of(texts)} {space} {tail}"
        if "array" in types and depth <= _DEPTH:
            item = self._element("item", part.get("items"), depth + 1)
            return f"{head} ({item})* {space} {tail}"
        if "object" in types and part.get("properties") and depth <= _DEPTH:
            return f"{head} {self.members(part, depth)} {space} {tail}"
        plain = {"integer": "integer", "number": "number", "boolean": "truth", "null": '"null"'}
        if "string" not in types and types & plain.keys():
            return f"{head} {one_of(plain[t] for t in sorted(types & plain.keys()))} {space} {tail}"
        return f"{head} text {tail}"


def _texts(lark: Lark) -> list[str]:
    """Return the rules of plain values; ``text`` takes the mark after it along."""
    space = lark.mark(_NS)
    ends = (
        f"text: /(?s:.*)/ {space}" if space.startswith("<[") else f"text[suffix={space}]: /(?s:.*)/"
    )
    return [
        ends,
        "integer: /-?(0|[1-9][0-9]*)/",
        r"number: /-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/",
        'truth: "true" | "false"',
    ]


FORMAT = MiniMaxM3()

"""LFM2 and LFM2.5: calls as Python writes them, [name(key="value", ...), ...], between marks."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection
from typing import Any

from ggq.runtime.formats.base import Call, Delta, Function, Lark, literal, one_of
from ggq.runtime.formats.marked import MarkedFormat
from ggq.runtime.formats.reader import Reader, begin, content, more
from ggq.runtime.formats.rules import listed, standing_alone
from ggq.runtime.formats.values import property_schema, types_of

__all__ = ["FORMAT", "PythonReader", "parse_python", "python_rules"]

_STRINGS = r"""[^"']|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'"""
_STRING = re.compile(r"""\"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", re.DOTALL)
# A text that ends inside of a string: possessive by construction, each character has one reading.
_STRING_OPEN = re.compile(rf"""(?:{_STRINGS})*(?:"(?:\\.|[^"\\])*|'(?:\\.|[^'\\])*)""", re.DOTALL)
_WORDS = {"true": True, "false": False, "null": None}  # JSON's, which models write as well


class PythonReader(Reader):
    """Reads calls when the closing mark has come: only then is their end certain."""

    def finish(self) -> list[Delta]:
        held, self._held = self._held, ""
        return self._calls(held, "")

    def _step(self, out: list[Delta]) -> bool:
        at = self._held.find(self._closing)
        while at >= 0:
            body = self._held[:at]
            if parse_python(body) or not _STRING_OPEN.fullmatch(body):
                out += self._calls(body, self._closing)
                self._end(at)
                return True
            at = self._held.find(self._closing, at + 1)
        return False

    def _calls(self, body: str, closing: str) -> list[Delta]:
        calls = parse_python(body)
        if not calls or any(call.name not in self.tools for call in calls):
            return [content(self._opening + body + closing)]
        return [delta for call in calls for delta in (begin(call.name), more(call.arguments))]


class Lfm2(MarkedFormat):
    """Values are Python's literals."""

    name = "lfm2"
    calls = (("<|tool_call_start|>", "<|tool_call_end|>"),)
    reader = PythonReader

    def spelled(self, calls: list[dict[str, Any]]) -> str:
        """Return calls as Python writes them; "" where arguments are no object."""
        if not all(isinstance(call["arguments"], dict) for call in calls):
            return ""
        inside = (", ".join(f"{k}={v!r}" for k, v in c["arguments"].items()) for c in calls)
        texts = (f"{c['name']}({said})" for c, said in zip(calls, inside, strict=True))
        opening, closing = self.calls[0]
        return f"{opening}[{', '.join(texts)}]{closing}"

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "<|tool_list_start|>" in template or self.calls[0][0] in template

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        lines, call = python_rules(functions, lark)
        opening, closing = (lark.mark(mark) for mark in self.calls[0])
        more_calls = f' (", " {call})*' if many else ""
        return [*lines, f'calls: {opening} "[" {call}{more_calls} "]" {closing}']


def python_rules(functions: list[Function], lark: Lark) -> tuple[list[str], str]:
    """Return rules of calls, and the expression of one.

    Values are JSON, which Python reads but for three words.
    """
    lines = ['truth: "True" | "False"']
    for i, f in enumerate(functions):
        arguments = {}
        for j, key in enumerate(f.parameters.get("properties") or {}):
            rule = f"argument_{i}_{j}"
            schema = property_schema(f.parameters, key)
            plain = types_of(schema, f.parameters) == {"boolean"}
            value = "truth" if plain else lark.json(standing_alone(f.parameters, key))
            lines += [f"{rule}: {literal(f'{key}=')} {rule}_value", f"{rule}_value: {value}"]
            arguments[key] = rule
        inside = listed(arguments, f.parameters.get("required") or ())
        lines.append(f'call_{i}: {literal(f"{f.name}(")} {inside} ")"')
    return lines, one_of(f"call_{i}" for i in range(len(functions)))


def parse_python(text: str) -> list[Call]:
    """Return the calls that a text of Python consists of, an empty list where it is another."""
    try:
        # models write the ends of lines in a string as they are
        text = _STRING.sub(lambda match: match[0].replace("\n", "\\n"), text.strip())
        found: list[ast.expr] = []
        for line in ast.parse(text).body:  # calls on lines of their own, or in lists
            if not isinstance(line, ast.Expr):
                return []
            tree = line.value
            found += tree.elts if isinstance(tree, (ast.List, ast.Tuple)) else [tree]
        return [_call(node) for node in found]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return []


class _Words(ast.NodeTransformer):
    """Reads JSON's words for Python's."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Return the constant that a name stands for, or the name."""
        return ast.Constant(_WORDS[node.id]) if node.id in _WORDS else node


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("no call with named arguments")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("no name")
        arguments[keyword.arg] = ast.literal_eval(_Words().visit(keyword.value))
    return Call(ast.unparse(node.func), json.dumps(arguments, ensure_ascii=False))


FORMAT = Lfm2()

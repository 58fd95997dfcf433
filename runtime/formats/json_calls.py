"""Calls written as JSON objects, read while they come, and whole where they are written otherwise.

It knows no marks: a format says what opens and closes the text with calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from ggq.runtime.formats.base import Call, Delta, Tools
from ggq.runtime.formats.reader import Reader, begin, content, more

__all__ = ["NAMED", "OBJECT", "JsonReader", "JsonSpan", "parse_calls", "value_of"]

_DECODER = json.JSONDecoder()
_SPECIAL = re.compile(r'["\\{}\[\]]')
_BETWEEN = r"[\s,;\[\]]*"  # lists of calls, or one after another
_NAMED = re.compile(
    r"\s*(?:\[TOOL_CALLS\])?\s*([\w.\-]+)\s*(?:\[CALL_ID\][^\[{]*)?(?:\[ARGS\])?\s*(?=\{)"
)
_KEYS = {"name", "arguments", "parameters", "function", "type", "id"}
_FIRST_KEY = re.compile(_BETWEEN + r'\{\s*"([^"\\]*)"')

# How a call begins, up to its arguments, and how many braces are open besides those of these.
OBJECT = (
    re.compile(
        _BETWEEN + r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:'
        r"\s*(?=\{)"
    ),
    1,
)
NAMED = (_NAMED, 0)


class JsonSpan:
    """Finds where an object or list ends, fed piece by piece."""

    def __init__(self, depth: int = 0) -> None:
        """Take how many braces are open already."""
        self._depth, self.in_string, self._escaped = depth, False, False
        self.done = False

    def feed(self, text: str) -> int:
        """Return how many characters belong to it; `done` tells whether it is complete."""
        at = 0
        while not self.done and at < len(text):
            if self._escaped:
                self._escaped, at = False, at + 1
                continue
            match = _SPECIAL.search(text, at)
            if match is None:
                return len(text)
            at, mark = match.end(), match.group()
            if mark == '"':
                self.in_string = not self.in_string
            elif mark == "\\":
                self._escaped = self.in_string
            elif not self.in_string:
                self._depth += 1 if mark in "{[" else -1
                self.done = self._depth == 0
        return at


class JsonReader(Reader):
    """For calls in JSON: ``heads`` say how one begins."""

    def __init__(
        self,
        tools: Tools,
        opening: str,
        closing: str,
        heads: Iterable[tuple[re.Pattern[str], int]] = (OBJECT,),
        between: re.Pattern[str] = re.compile(_BETWEEN),
    ) -> None:
        """Take the marks around, how calls begin and what may stand between and after them."""
        super().__init__(tools, opening, closing)
        self._heads, self._between = tuple(heads), between
        self._arguments: JsonSpan | None = None  # in work
        self._around: JsonSpan | None = None  # the object that they are in

    def finish(self) -> list[Delta]:
        out: list[Delta] = []
        if self._arguments is None and self._around is None:
            self._whole(out, self._held, "")
        self._held = ""
        return out

    def _step(self, out: list[Delta]) -> bool:
        if self._arguments is not None:
            n = self._arguments.feed(self._held)
            if n:
                out.append(more(self._held[:n]))
            done, self._held = self._arguments.done, self._held[n:]
            self._arguments = None if done else self._arguments
            return done
        if self._around is not None:
            self._held = self._held[self._around.feed(self._held) :]
            done = self._around.done
            self._around = None if done else self._around
            return done
        return self._begin(out) or self._close(out)

    def _begin(self, out: list[Delta]) -> bool:
        for head, depth in self._heads:
            match = head.match(self._held)
            if match is None:
                continue
            name = match.group(1)
            name = json.loads(name) if name.startswith('"') else name
            if name not in self.tools:
                continue
            out.append(begin(name))
            self._begun, self._held = True, self._held[match.end() :]
            self._arguments = JsonSpan()
            self._around = JsonSpan(depth) if depth else None
            return True
        first = _FIRST_KEY.match(self._held)
        if not self._closing and not self._begun and first and first.group(1) not in _KEYS:
            out.append(content(self._opening + self._held))  # an object, and no call
            self._rest, self._held = "", ""
            return True
        return False

    def _close(self, out: list[Delta]) -> bool:
        """Look for the closing mark outside of strings."""
        at = self._held.find(self._closing) if self._closing else -1
        while at >= 0:
            body = self._held[:at]
            span = JsonSpan()
            span.feed(body)
            if not span.in_string or parse_calls(body, self.tools):
                self._whole(out, body, self._closing)
                self._end(at)
                return True
            at = self._held.find(self._closing, at + 1)
        return False

    def _whole(self, out: list[Delta], body: str, closing: str) -> None:
        """Read what no head has matched: other orders of members, texts that are no calls."""
        if self._begun and self._between.fullmatch(body):
            return
        calls = parse_calls(body, self.tools)
        for call in calls:
            out += [begin(call.name), more(call.arguments)]
        if not calls:
            out.append(content(("" if self._begun else self._opening) + body + closing))


def parse_calls(text: str, known: Iterable[str] = ()) -> list[Call]:
    """Return the tool calls that ``text`` consists of, an empty list where it is something else.

    Reads {"name", "arguments"}, Llama 3's {"name", "parameters"} (several with ";"), lists, and
    Mistral's name[ARGS]{...}. ``known``: the tools' names, where calls to anything else are none.
    """
    text, known = text.strip(), set(known)
    calls = _named(text) if _NAMED.match(text) else _objects(text)
    return calls if all(not known or c.name in known for c in calls) else []


def value_of(text: str) -> Any:
    """Return what JSON text says, or the text where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _named(text: str) -> list[Call]:
    """Read name[ARGS]{...} one after another."""
    calls, at = [], 0
    while match := _NAMED.match(text, at):
        parsed = _raw(text, match.end())
        if parsed is None:
            return []
        value, at = parsed
        calls.append(Call(match.group(1), json.dumps(value, ensure_ascii=False)))
    return calls if not text[at:].strip() else []


def _objects(text: str) -> list[Call]:
    """Read JSON objects or lists of them, one after another."""
    calls, at = [], 0
    while at < len(text):
        parsed = _raw(text, at)
        if parsed is None:
            return []
        value, at = parsed
        for item in value if isinstance(value, list) else [value]:
            call = _from_object(item)
            if call is None:
                return []
            calls.append(call)
        while at < len(text) and text[at] in " \t\r\n;,":
            at += 1
    return calls


def _raw(text: str, at: int) -> tuple[Any, int] | None:
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None


def _from_object(item: Any) -> Call | None:
    if not isinstance(item, dict):
        return None
    item = item["function"] if isinstance(item.get("function"), dict) else item
    name = item.get("name")
    arguments = item.get("arguments", item.get("parameters"))
    if not isinstance(name, str) or not name:
        return None
    if isinstance(arguments, str):
        parsed = value_of(arguments)
        arguments = parsed if isinstance(parsed, dict) else None
    if not isinstance(arguments, dict):
        return None
    return Call(name, json.dumps(arguments, ensure_ascii=False))

"""Calls in tags, as Qwen 3 Coder and 3.5 write them, and the choice between these and JSON.

A tag for the function, then for each argument one with its name, its value as text and a closing
one. What type a value has, the tool's schema says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ggq.runtime.formats.base import Delta, Tools
from ggq.runtime.formats.json_calls import NAMED, OBJECT, JsonReader, JsonSpan
from ggq.runtime.formats.reader import Reader, begin, content, more
from ggq.runtime.formats.values import is_text, property_schema, typed, types_of

__all__ = ["QWEN", "TaggedReader", "Tags", "TagsReader"]


@dataclass(frozen=True)
class Tags:
    """The tags of a format. ``function``, ``parameter``: patterns with the name in a group.

    A parameter's group ``text``, where there is one, says whether its value is a string: true,
    string, or else.
    ``end``: of a function, where there is one. ``closes``: the end of a value, with the line's end
    before it where that is no part of it. ``after``: what follows a value, and not a quotation.
    """

    function: re.Pattern[str]
    parameter: re.Pattern[str]
    end: re.Pattern[str] | None
    closes: tuple[str, ...]
    after: tuple[str, ...]
    line_end: bool  # whether the end of its line belongs to a parameter's tag

    @cached_property
    def value_end(self) -> re.Pattern[str]:
        """The pattern of what ends a value."""
        return re.compile(rf"(?:{'|'.join(map(re.escape, self.closes))})\s*")


QWEN = Tags(
    function=re.compile(r"\s*<function=([^>\n]+)>\s*"),
    parameter=re.compile(r"\s*<parameter=([^>\n]+)>\n?"),
    end=re.compile(r"\s*</function>"),
    closes=("\n</parameter>", "</parameter>"),
    after=("<parameter=", "</function>", "</tool_call>"),
    line_end=True,
)


class TagsReader(Reader):
    """Reads calls in tags; values that are text come while they are written."""

    tags = QWEN

    def __init__(self, tools: Tools, opening: str, closing: str) -> None:
        super().__init__(tools, opening, closing)
        self._schema: Mapping[str, Any] | None = None  # of the call in work
        self._key: str | None = None  # of the value in work
        self._text: list[str] | None = None  # of a value that is not text
        self._first = True
        self._object: JsonSpan | None = None  # arguments in JSON after all

    def finish(self) -> list[Delta]:
        out: list[Delta] = []
        if self._key is not None:
            begun = any(mark.startswith(self._held) for mark in self.tags.closes)
            if not begun and not self.tags.value_end.match(self._held):
                self._value(out, self._held, final=True)
            self._held = ""
            if self._is_cut():
                self._schema = None
                return out
            out += self._value_end()
        if self._schema is not None and self._object is None:
            out.append(more(self._closed()))
        elif self._object is None and (self._held.strip() or not self._begun):
            out.append(content(("" if self._begun else self._opening) + self._held))
        self._held = ""
        return out

    def _is_cut(self) -> bool:
        """Return whether the value in work ends too early for its type."""
        assert self._schema is not None and self._key is not None
        if self._text is None:
            return False
        types = types_of(property_schema(self._schema, self._key), self._schema)
        value = typed("".join(self._text), self._schema, self._key)
        return isinstance(value, str) and types is not None and "string" not in types

    def _step(self, out: list[Delta]) -> bool:
        if self._object is not None:
            n = self._object.feed(self._held)
            out.append(more(self._held[:n]))
            done, self._held = self._object.done, self._held[n:]
            return done and self._leave(out)
        if self._key is not None:
            return self._until_value_end(out)
        if self._schema is not None:
            return self._inside(out)
        return self._outside(out)

    def _outside(self, out: list[Delta]) -> bool:
        match = self.tags.function.match(self._held)
        if match and match.group(1).strip() in self.tools:
            name = match.group(1).strip()
            self._schema, self._first, self._begun = self.tools[name], True, True
            self._held = self._held[match.end() :]
            out.append(begin(name))
            return True
        at = self._held.find(self._closing) if self._closing else -1
        if at < 0:
            return False
        if not self._begun or self._held[:at].strip():
            opening = "" if self._begun else self._opening
            out.append(content(opening + self._held[:at] + self._closing))
        self._end(at)
        return True

    def _inside(self, out: list[Delta]) -> bool:
        if match := self.tags.parameter.match(self._held):
            if self.tags.line_end and match.end() == len(self._held) and match[0][-1] != "\n":
                return False
            self._key, self._held = match.group(1).strip(), self._held[match.end() :]
            said = match.groupdict().get("text")
            text = is_text(self._schema, self._key) if said is None else said in ("true", "string")
            self._text = None if text else []
            out.append(more(f"{'{' if self._first else ', '}{_json(self._key)}: "))
            if self._text is None:
                out.append(more('"'))
            self._first = False
            return True
        if self._skip_end():
            out.append(more(self._closed()))
            return True
        if self._closing and self._held.lstrip().startswith(self._closing):
            out.append(more(self._closed()))
            return True
        if self._first and self._held.startswith("{"):
            self._object = JsonSpan()
            return True
        return False

    def _leave(self, out: list[Delta]) -> bool:
        """Leave arguments in JSON, and the end of their function."""
        self._object = self._schema = None
        self._skip_end()
        return True

    def _skip_end(self) -> bool:
        match = self.tags.end.match(self._held) if self.tags.end else None
        self._held = self._held[match.end() :] if match else self._held
        return match is not None

    def _closed(self) -> str:
        self._schema = None
        return "{}" if self._first else "}"

    def _until_value_end(self, out: list[Delta]) -> bool:
        """Take a value's text up to a closing tag that is none of its own."""
        at = 0
        while match := self.tags.value_end.search(self._held, at):
            after = self._held[match.end() :]
            if any(after.startswith(mark) for mark in self.tags.after):
                self._value(out, self._held[: match.start()], final=True)
                out += self._value_end()
                self._held = after
                return True
            if not after or any(mark.startswith(after) for mark in self.tags.after):
                self._value(out, self._held[: match.start()])
                self._held = self._held[match.start() :]
                return False
            at = match.end()
        tails = range(max(at, len(self._held) - len(self.tags.closes[0])), len(self._held))
        closes = self.tags.closes
        begun = (i for i in tails if any(mark.startswith(self._held[i:]) for mark in closes))
        cut = next(begun, len(self._held))
        self._value(out, self._held[:cut])
        self._held = self._held[cut:]
        return False

    def _value(self, out: list[Delta], text: str, final: bool = False) -> None:
        if self._text is not None:
            self._text.append(text)
        elif text:
            out.append(more(_json(text)[1:-1]))

    def _value_end(self) -> list[Delta]:
        assert self._schema is not None and self._key is not None
        key, parts, self._key, self._text = self._key, self._text, None, None
        if parts is None:
            return [more('"')]
        return [more(_json(typed("".join(parts), self._schema, key)))]


class TaggedReader:
    """Reads JSON or tags, whichever the first characters say."""

    def __init__(self, tools: Tools, opening: str, closing: str) -> None:
        self._given = tools, opening, closing
        self._reader: Reader | None = None
        self._held = ""

    @property
    def rest(self) -> str | None:
        """Return what follows the closing mark, None before it."""
        return None if self._reader is None else self._reader.rest

    def push(self, text: str) -> list[Delta]:
        """Return what is certain after another piece of text."""
        if self._reader is None:
            self._held += text
            start = self._held.lstrip()
            if "<function=".startswith(start):
                return []
            self._choose(start)
            text = self._held
        assert self._reader is not None
        return self._reader.push(text)

    def finish(self) -> list[Delta]:
        """Return the rest where the answer ends before the closing mark."""
        out = []
        if self._reader is None:
            out = self._choose(self._held).push(self._held)
        assert self._reader is not None
        return out + self._reader.finish()

    def _choose(self, start: str) -> Reader:
        if start.startswith("<function="):
            self._reader = TagsReader(*self._given)
        else:
            self._reader = JsonReader(*self._given, (NAMED, OBJECT))
        return self._reader


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

"""How models write thoughts and tool calls: the marks of each format, and calls read from JSON.

A format is chosen by what the model's template and vocabulary contain. It knows no streaming.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Call", "Format", "choose_format", "parse_calls"]

_DECODER = json.JSONDecoder()
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_NAME = re.compile(
    r"\s*(?:\[TOOL_CALLS\])?\s*([\w.\-]+)\s*(?:\[CALL_ID\][^\[{]*)?(?:\[ARGS\])?\s*(?=\{)"
)


@dataclass(frozen=True)
class Call:
    """A tool call: the function's name and its arguments as JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Format:
    """Marks in the text: around thoughts, around calls (``call_close`` "" is the answer's end).

    ``bare``: a call may be an answer that is nothing but JSON.
    """

    name: str
    think: tuple[str, str] = ("<think>", "</think>")
    calls: tuple[tuple[str, str], ...] = (("<tool_call>", "</tool_call>"),)
    bare: bool = False
    arguments: str = "arguments"  # the member that holds the arguments

    def marks(self) -> set[str]:
        """Return every mark: control tokens among them have to be seen to be understood."""
        found = {mark for pair in (self.think, *self.calls) for mark in pair if mark}
        return found | {"[ARGS]", "[CALL_ID]"} if self.name == "mistral" else found


HERMES = Format("hermes")
LLAMA = Format("llama", calls=(("<|python_tag|>", ""),), bare=True, arguments="parameters")
MISTRAL = Format("mistral", think=("[THINK]", "[/THINK]"), calls=(("[TOOL_CALLS]", ""),))
HARMONY = Format("harmony", think=("", ""), calls=())
GENERIC = Format("generic", calls=(*HERMES.calls, ("<|python_tag|>", ""), ("[TOOL_CALLS]", "")),
                 bare=True)  # fmt: skip


def choose_format(template: str, tokens: Any) -> Format:
    """Return the format of a model, by its chat template's source and its token texts."""
    if "<|channel|>" in tokens and "<|message|>" in tokens:
        return HARMONY
    if "<tool_call>" in template:
        return HERMES
    if "[TOOL_CALLS]" in template:
        return MISTRAL
    if "<|python_tag|>" in tokens and "parameters" in template:
        return LLAMA
    return GENERIC


def parse_calls(text: str, known: Iterable[str] = ()) -> list[Call]:
    """Return the tool calls that ``text`` consists of, an empty list where it is something else.

    Reads Hermes and Qwen ({"name", "arguments"}), Llama 3 ({"name", "parameters"}, several with
    ";"), Mistral (a list, or name[ARGS]{...}) and Qwen3-Coder (<function=...>). ``known``: names
    of the tools, where calls to anything else are no calls.
    """
    text, known = text.strip(), set(known)
    if "<function=" in text:
        calls = [_from_xml(m.group(1), m.group(2)) for m in _FUNCTION.finditer(text)]
    else:
        calls = _named(text) if _NAME.match(text) else _objects(text)
    return calls if all(not known or c.name in known for c in calls) else []


def _from_xml(name: str, body: str) -> Call:
    found = {m.group(1).strip(): _value(m.group(2)) for m in _PARAMETER.finditer(body)}
    if not found and body.strip().startswith("{"):
        parsed = _value(body.strip())
        found = parsed if isinstance(parsed, dict) else {}
    return Call(name.strip(), json.dumps(found, ensure_ascii=False))


def _value(text: str) -> Any:
    """Return a parameter's value: JSON where it is some, else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _named(text: str) -> list[Call]:
    """Read name[ARGS]{...} one after another."""
    calls, at = [], 0
    while match := _NAME.match(text, at):
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
        parsed = _value(arguments)
        arguments = parsed if isinstance(parsed, dict) else None
    if not isinstance(arguments, dict):
        return None
    return Call(name, json.dumps(arguments, ensure_ascii=False))

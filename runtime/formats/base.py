"""What a format of answers is: how it is recognized, read while it comes, and forced by a grammar.

It knows no format by name and no HTTP.
"""

from __future__ import annotations

import json
import re
import secrets
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ggq.runtime.template.template import Segment

__all__ = [
    "CALL",
    "CONTENT",
    "JSON_STYLE",
    "REASONING",
    "Call",
    "Delta",
    "Format",
    "Function",
    "Lark",
    "Parser",
    "Tools",
    "as_tools",
    "joined",
    "literal",
    "new_call_id",
    "one_of",
]

CONTENT, REASONING, CALL = "content", "reasoning", "call"
# As models write it: no white space but after , and :.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

Tools = Mapping[str, Mapping[str, Any]]  # name -> JSON schema of the parameters


@dataclass(frozen=True)
class Call:
    """A tool call: the function's name and its arguments as JSON text, as far as they have come."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Delta:
    """A piece of an answer: text of a kind, a tool call, or in ``text`` more of its arguments."""

    kind: str
    text: str = ""
    call: Call | None = None  # where a call begins
    index: int = 0  # of the call
    id: str = ""


class Parser(Protocol):
    """Reads one answer."""

    n_calls: int

    def push(self, text: str) -> list[Delta]:
        """Return what is certain after another piece of text."""

    def finish(self) -> list[Delta]:
        """Return the rest at the end of the answer."""


@dataclass(frozen=True)
class Function:
    """A function that a grammar lets the model call."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Lark:
    """Writes the pieces of a grammar for one model: ``control`` tells a control token's number."""

    control: Callable[[str], int | None]

    def mark(self, text: str) -> str:
        """Return a mark: a control token by its number, else its text."""
        token = self.control(text)
        return literal(text) if token is None else f"<[{token}]>"

    def spelled(self, text: str, marks: Collection[str]) -> str:
        """Return a text in which marks stand as a sequence of both, "" for none."""
        pieces = re.split(f"({'|'.join(map(re.escape, marks))})", text) if marks else [text]
        return " ".join(self.mark(p) if p in marks else literal(p) for p in pieces if p)

    def json(self, schema: Mapping[str, Any], **guidance: Any) -> str:
        """Return any JSON under a schema."""
        own = schema.get("x-guidance", {})
        return f"%json {literal({**schema, 'x-guidance': {**JSON_STYLE, **own, **guidance}})}"


class Format(ABC):
    """One way of models to write thoughts and tool calls."""

    name: str
    rank = 0  # where several recognize a model, the highest is its format
    think: tuple[str, str] = ("<think>", "</think>")  # marks around thoughts
    marks: tuple[str, ...] = ()  # further ones: control tokens that have to be seen as text

    # how a call is explained to a model whose template tells it of no tools
    example = (
        '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )

    @abstractmethod
    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        """Tell whether a model with this template's source and these tokens writes like this."""

    def fitted(self, template: str, tokens: Collection[str]) -> Format:
        """Return the format as this model writes it, where models differ: a copy, or itself."""
        return self

    @abstractmethod
    def parser(self, tools: Tools, thinking: bool, continued: bool = False) -> Parser:
        """Return the reader of one answer; ``thinking``: the prompt has opened thoughts.

        ``continued``: the prompt ends with a part of the answer. Without tools calls stay text.
        """

    @abstractmethod
    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        """Return Lark rules, ``calls`` among them: one call of these functions, or ``many``."""

    @property
    def thoughts(self) -> tuple[str, str, str]:
        """Return the marks around thoughts and the text that ends them before their time."""
        opening, closing = self.think
        return opening, closing, f"\n{closing}" if closing else ""

    def opens(self, prompt: str) -> bool:
        """Tell whether a prompt ends where thoughts have just been opened."""
        opening = self.think[0].rstrip()
        return bool(opening) and prompt.rstrip().endswith(opening)

    def begun(
        self, content: str, thoughts: str, prompt: str, thinking: bool
    ) -> tuple[list[Segment], bool]:
        """Return what follows ``prompt`` where its answer has begun, and whether thoughts go on.

        ``thinking``: the prompt has opened them.
        """
        opening, closing = (mark.strip() for mark in self.think)
        segments = []
        if thoughts and opening:
            mark = "" if thinking else opening
            segments += [Segment(mark if prompt.endswith(f"{opening}\n") else f"{mark}\n", True)]
            segments += [Segment(thoughts, False)]
            thinking = True
        if content:
            if thinking:
                segments.append(Segment(f"\n{closing}\n\n", True))
            segments.append(Segment(content, False))
            thinking = False
        return segments, thinking

    def spelled(self, calls: list[dict[str, Any]]) -> str:
        """Return calls, each its name and arguments, as the model writes them; "" is not known.

        It is for conversations whose template writes none.
        """
        return ""

    def call_id(self, given: str) -> str:
        """Return the id of a call in the history as the format's templates take it."""
        return given


def joined(deltas: Iterable[Delta]) -> list[Delta]:
    """Return deltas with those of a call that come together as one."""
    out: list[Delta] = []
    for delta in deltas:
        last = out[-1] if out else None
        if last is None or last.kind != CALL or delta.kind != CALL or delta.call is not None:
            out.append(delta)
        elif last.call is None:
            out[-1] = replace(last, text=last.text + delta.text)
        else:
            begun = replace(last.call, arguments=last.call.arguments + delta.text)
            out[-1] = replace(last, call=begun)
    return out


def as_tools(tools: Iterable[str] | Tools) -> Tools:
    """Return tools by name, given as that or as names alone."""
    return tools if isinstance(tools, Mapping) else {name: {} for name in tools}


def new_call_id() -> str:
    """Return an id of nine letters and digits: the form that Mistral's templates insist on."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


def literal(value: Any) -> str:
    """Return compact JSON, which is how Lark writes a text as well."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def one_of(names: Iterable[str]) -> str:
    """Return a choice among rules."""
    return f"({' | '.join(names)})"

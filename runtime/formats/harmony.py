"""Harmony (gpt-oss): channels of analysis, commentary (calls among them) and the final answer."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from ggq.runtime.formats.base import (
    CALL,
    CONTENT,
    REASONING,
    Call,
    Delta,
    Format,
    Function,
    Lark,
    Tools,
    joined,
    literal,
    new_call_id,
    one_of,
)
from ggq.runtime.template.template import Segment

__all__ = ["FORMAT"]

_STRUCTURE = re.compile(r"<\|(start|message|end|call|return)\|>")
_ANALYSIS, _FINAL = "<|channel|>analysis", "<|channel|>final"
_PARTIAL = re.compile(r"<(\|[a-z]*\|?)?$")
_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.\-]+)")


class Harmony(Format):
    """Messages in channels, each with a header; a recipient in it makes it a call."""

    name = "harmony"
    rank = 10  # its tokens say it, whatever the template
    think = ("", "")
    marks = ("<|call|>",)  # ends a call and the answer

    @property
    def thoughts(self) -> tuple[str, str, str]:
        return _ANALYSIS, "<|end|>", f"<|end|><|start|>assistant{_FINAL}<|message|>"

    def recognizes(self, template: str, tokens: Collection[str]) -> bool:
        return "<|channel|>" in tokens and "<|message|>" in tokens

    def parser(self, tools: Tools, thinking: bool, continued: bool = False) -> HarmonyParser:
        if not continued:
            return HarmonyParser(tools)
        return HarmonyParser(tools, _header=_ANALYSIS if thinking else _FINAL, _in_body=True)

    def begun(
        self, content: str, thoughts: str, prompt: str, thinking: bool
    ) -> tuple[list[Segment], bool]:
        """Thoughts and what is said are messages of their own; the prompt has begun the first."""
        segments = []
        if thoughts or not content:
            segments += [Segment(f"{_ANALYSIS}<|message|>", True), Segment(thoughts, False)]
        if thoughts and content:
            segments.append(Segment("<|end|><|start|>assistant", True))
        if content:
            segments += [Segment(f"{_FINAL}<|message|>", True), Segment(content, False)]
        return [s for s in segments if s.text], not content

    def rules(self, functions: list[Function], lark: Lark, many: bool) -> list[str]:
        """Return the rules of one call: <|call|> after it ends the answer, so there are no more."""
        lines = []
        for i, f in enumerate(functions):
            to = literal(f"commentary to=functions.{f.name} ")
            head = f'{to} {lark.mark("<|constrain|>")} "json" {lark.mark("<|message|>")}'
            lines.append(f"call_{i}: {head} arguments_{i}")
            lines.append(f"arguments_{i}: {lark.json(f.parameters)}")
        call = one_of(f"call_{i}" for i in range(len(functions)))
        return [*lines, f"calls: {lark.mark('<|channel|>')} {call}"]


@dataclass
class HarmonyParser:
    """Reads one answer."""

    tools: Tools
    n_calls: int = 0
    _held: str = ""
    _header: str = "<|start|>assistant"
    _in_body: bool = False
    _body_held: str = ""  # of a call, as long as it may be none
    _in_call: bool = False
    _id: str = ""

    def push(self, text: str) -> list[Delta]:
        """Return what is certain after another piece of text."""
        self._held += text
        out: list[Delta] = []
        while match := _STRUCTURE.search(self._held):
            before, mark = self._held[: match.start()], match.group(1)
            self._held = self._held[match.end() :]
            if mark == "message":
                self._header, self._in_body = self._header + before, True
                continue
            out += self._body(before) + self._close()
            self._header, self._in_body = "", False
        if self._in_body:
            partial = _PARTIAL.search(self._held)
            cut = partial.start() if partial else len(self._held)
            text, self._held = self._held[:cut], self._held[cut:]
            out += self._body(text)
        return joined(out)

    def finish(self) -> list[Delta]:
        """Return the rest at the end of the answer."""
        rest, self._held = self._held, ""
        rest = _PARTIAL.sub("", rest) if self._in_call else rest
        if not self._in_body and not rest.startswith("<|") and "<|channel|>" not in self._header:
            return [Delta(CONTENT, rest)] if rest else []
        return joined(self._body(rest) + self._close())

    def _recipient(self) -> str:
        match = _RECIPIENT.search(self._header)
        return match.group(1) if match else ""

    def _body(self, text: str) -> list[Delta]:
        if not text or not self._in_body:
            return []
        if self._in_call:
            return [Delta(CALL, text, index=self.n_calls - 1, id=self._id)]
        if not self._recipient():
            return [Delta(REASONING if "<|channel|>analysis" in self._header else CONTENT, text)]
        self._body_held += text
        body = self._body_held.lstrip()
        if not body.startswith("{") or self._recipient() not in self.tools:
            return []
        self._in_call, self._body_held, self._id = True, "", new_call_id()
        self.n_calls += 1
        begun = Delta(CALL, call=Call(self._recipient(), ""), index=self.n_calls - 1, id=self._id)
        return [begun, Delta(CALL, body, index=begun.index, id=begun.id)]

    def _close(self) -> list[Delta]:
        """End a message; what only looked like a call is content."""
        held, self._body_held, self._in_call = self._body_held, "", False
        return [Delta(CONTENT, held)] if held else []


FORMAT = Harmony()

"""An answer's text, as it comes, to thoughts, content and tool calls.

What may be the beginning of a mark is held back; a call comes out whole, and text that only looks
like one comes out as the content it is. It knows no HTTP.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ggq.runtime.server.formats import Call, Format, parse_calls

__all__ = ["AnswerParser", "Delta", "make_parser", "new_call_id"]

CONTENT, REASONING, CALL = "content", "reasoning", "call"


@dataclass(frozen=True)
class Delta:
    """A piece of an answer: text of a kind, or a whole tool call."""

    kind: str
    text: str = ""
    call: Call | None = None
    index: int = 0  # of the call
    id: str = ""


def new_call_id() -> str:
    """Return an id of nine letters and digits: the form that Mistral's templates insist on."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


class AnswerParser:
    """For formats that put marks around thoughts and calls."""

    def __init__(
        self,
        form: Format,
        tools: Iterable[str] = (),
        thinking: bool = False,
        continued: bool = False,
    ):
        """Take the tools' names (none: calls stay text) and whether the prompt opened thoughts.

        ``continued``: the prompt ends with a part of the answer, white space after it counts.
        """
        self._form, self._tools = form, tuple(tools)
        self._state = REASONING if thinking else CONTENT
        self._held = ""
        self._opening = self._closing = ""
        self._begun = continued and not thinking  # whether content has come, apart from white space
        self._trim = thinking and not continued
        self.n_calls = 0
        self._bare = form.bare and bool(self._tools)

    def push(self, text: str) -> list[Delta]:
        """Return what is certain after another piece of text."""
        self._held += text
        return list(self._drain())

    def finish(self) -> list[Delta]:
        """Return the rest at the end of the answer."""
        out = list(self._drain())
        rest, self._held = self._held, ""
        if self._state == CALL or self._waits_for_json(rest):
            return out + self._calls(rest, self._opening if self._state == CALL else "")
        return out + self._text(rest)

    def _drain(self) -> Iterator[Delta]:
        while True:
            if self._state == CALL:
                end = self._held.find(self._closing) if self._closing else -1
                if end < 0:
                    return
                body = self._held[:end]
                self._held = self._held[end + len(self._closing) :]
                self._state = CONTENT
                yield from self._calls(body, self._opening, self._closing)
                continue
            if self._waits_for_json(self._held):
                return
            mark = self._first_mark()
            if mark is None:
                cut = len(self._held) - self._overlap()
                if any(self._marks()):  # white space before a mark is no part of the answer
                    cut = len(self._held[:cut].rstrip())
                text, self._held = self._held[:cut], self._held[cut:]
                yield from self._text(text)
                return
            at, opening, state, closing = mark
            text, self._held = self._held[:at], self._held[at + len(opening) :]
            yield from self._text(text.rstrip())
            self._state, self._closing, self._opening = state, closing, opening
            self._trim = True

    def _marks(self) -> Iterator[tuple[str, str, str]]:
        """Yield (mark, state after it, closing mark) of what can come next."""
        opening, closing = self._form.think
        if self._state == REASONING:
            yield closing, CONTENT, ""
            return
        if opening and not self._begun:
            yield opening, REASONING, ""
        if self._tools:
            for mark, end in self._form.calls:
                yield mark, CALL, end

    def _first_mark(self) -> tuple[int, str, str, str] | None:
        found = [
            (at, mark, state, closing)
            for mark, state, closing in self._marks()
            if (at := self._held.find(mark)) >= 0
            and (state != REASONING or not self._held[:at].strip())
        ]
        return min(found, default=None)

    def _overlap(self) -> int:
        """Return how many last characters may begin a mark."""
        marks = [mark for mark, _, _ in self._marks()]
        longest = max(map(len, marks), default=1) - 1
        sizes = range(min(longest, len(self._held)), 0, -1)
        return next((n for n in sizes if any(m.startswith(self._held[-n:]) for m in marks)), 0)

    def _waits_for_json(self, text: str) -> bool:
        """Return whether the whole answer so far may be a bare call."""
        if not self._bare or self._state != CONTENT or self._begun:
            return False
        text = text.lstrip()
        return text[:1] == "{" or text[:2] in ("[", "[{")

    def _calls(self, body: str, opening: str, closing: str = "") -> list[Delta]:
        calls = parse_calls(body, self._tools)
        if not calls:
            self._trim = False
            return self._text(opening + body + closing)
        self._trim, out = True, []
        for call in calls:
            out.append(Delta(CALL, call=call, index=self.n_calls, id=new_call_id()))
            self.n_calls += 1
        return out

    def _text(self, text: str) -> list[Delta]:
        if self._trim:
            text = text.lstrip()
        if not text:
            return []
        self._trim = False
        kind = REASONING if self._state == REASONING else CONTENT
        self._begun |= kind == CONTENT and bool(text.strip())
        return [Delta(kind, text)]


@dataclass
class HarmonyParser:
    """For gpt-oss: channels of analysis, commentary (calls among them) and the final answer."""

    tools: tuple[str, ...] = ()
    n_calls: int = 0
    _held: str = ""
    _header: str = "<|start|>assistant"
    _in_body: bool = False
    _arguments: list[str] = field(default_factory=list)

    def push(self, text: str) -> list[Delta]:
        """Return what is certain after another piece of text."""
        self._held += text
        out: list[Delta] = []
        while match := re.search(r"<\|(start|message|end|call|return)\|>", self._held):
            before, mark = self._held[: match.start()], match.group(1)
            self._held = self._held[match.end() :]
            if mark == "message":
                self._header, self._in_body = self._header + before, True
                continue
            out += self._body(before) + self._close()
            self._header, self._in_body = "", False
        if self._in_body:
            partial = re.search(r"<(\|[a-z]*\|?)?$", self._held)
            cut = partial.start() if partial else len(self._held)
            text, self._held = self._held[:cut], self._held[cut:]
            out += self._body(text)
        return out

    def finish(self) -> list[Delta]:
        """Return the rest at the end of the answer."""
        rest, self._held = self._held, ""
        if not self._in_body and not rest.startswith("<|") and "<|channel|>" not in self._header:
            return [Delta(CONTENT, rest)] if rest else []
        return self._body(rest) + self._close()

    def _recipient(self) -> str:
        match = re.search(r"to=(?:functions\.)?([\w.\-]+)", self._header)
        return match.group(1) if match else ""

    def _body(self, text: str) -> list[Delta]:
        if not text or not self._in_body:
            return []
        if self._recipient():
            self._arguments.append(text)
            return []
        return [Delta(REASONING if "<|channel|>analysis" in self._header else CONTENT, text)]

    def _close(self) -> list[Delta]:
        body, name = "".join(self._arguments), self._recipient()
        self._arguments = []
        if not name:
            return []
        calls = parse_calls(f"{name}{body.strip()}", self.tools)
        if not calls:
            return [Delta(CONTENT, body)] if body else []
        delta = Delta(CALL, call=calls[0], index=self.n_calls, id=new_call_id())
        self.n_calls += 1
        return [delta]


def make_parser(
    form: Format, tools: Iterable[str] = (), thinking: bool = False, continued: bool = False
) -> AnswerParser | HarmonyParser:
    """Return a parser for one answer."""
    if form.name == "harmony":
        return HarmonyParser(tuple(tools))
    return AnswerParser(form, tools, thinking, continued)

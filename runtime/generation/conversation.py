"""A conversation with a model: messages, their prompt, and what of it the cache still holds.

The next prompt begins with the tokens of the last one and of its answer wherever the text allows,
so that a turn evaluates only what is new. It knows nothing about terminals or servers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ggq.errors import UsageError
from ggq.runtime.generation import saved
from ggq.runtime.generation.answer import Piece, Tokenizer
from ggq.runtime.generation.generation import Options, Session, generate
from ggq.runtime.generation.messages import text_of
from ggq.runtime.pictures.gallery import Gallery
from ggq.runtime.pictures.rendering import rendered
from ggq.runtime.sampling import SamplingParams
from ggq.runtime.template.template import ChatTemplate, Segment, encode_segments

if TYPE_CHECKING:  # imported where they are used: few chats have a grammar
    from ggq.runtime.grammar.asked import Asked
    from ggq.runtime.grammar.compiler import MakeConstraint

__all__ = ["Conversation", "Prompt", "encode_segments"]

_THOUGHT = "reasoning"  # the kind of text that a Form's parser gives thoughts
_SUMMARY = "Summary of the conversation so far:\n"


class Form(Protocol):
    """How a model writes its thoughts (ggq.runtime.formats.base.Format)."""

    think: tuple[str, str]
    marks: tuple[str, ...]

    def parser(self, tools: Any, thinking: bool, continued: bool = False) -> Any:
        """Return the reader of one answer."""

    def opens(self, prompt: str) -> bool:
        """Tell whether a prompt ends where thoughts have just been opened."""

    def begun(
        self, content: str, thoughts: str, prompt: str, thinking: bool
    ) -> tuple[list[Segment], bool]:
        """Return what follows ``prompt`` where its answer has begun, and whether thoughts go on."""


class Conversation:
    """Messages with one model; ``messages`` are plain dictionaries with role and content.

    A content is a text, or a list of texts and pictures (ggq.runtime.pictures.rendering), which a
    model with a ``gallery`` takes.

    ``summary`` stands for what was said before them, where turns were summarized to make room.
    """

    gallery: Gallery | None = None
    counts = True  # whether `count` counts; a server's tokens are estimated

    def __init__(
        self,
        session: Session | Callable[[], Session],
        tokenizer: Tokenizer,
        template: ChatTemplate,
        system: str | None = None,
        template_options: Mapping[str, Any] | None = None,
        form: Form | None = None,
    ) -> None:
        """Take the model's parts; ``template_options`` go to the template with every prompt.

        A ``session`` that is a function is called when the first prompt has passed the template:
        opening one may compile kernels. ``form`` tells thoughts from answers; without one an answer
        is all that the model writes.
        """
        self._session, self.tokenizer, self.template = session, tokenizer, template
        self._form, self.summary = form, ""
        self._demand: Any = None  # what answers have to be: a factory of constraints
        self.template_options = dict(template_options or {})
        self.messages: list[dict[str, Any]] = []
        self._known_text = ""  # what the cache's first tokens stand for ...
        self._known_ids: list[int] = []  # ... and these tokens
        self.set_system(system)

    @property
    def session(self) -> Session:
        """The sequence that holds the conversation."""
        if callable(self._session):
            self._session = self._session()
        return self._session

    def set_system(self, text: str | None) -> None:
        """Replace the system message; None or "" removes it."""
        rest = [m for m in self.messages if m["role"] != "system"]
        self.messages = [{"role": "system", "content": text}, *rest] if text else rest

    @property
    def system(self) -> str | None:
        """The system message's text."""
        first = self.messages[0] if self.messages else {"role": ""}
        return first["content"] if first["role"] == "system" else None

    @property
    def n_ctx(self) -> int | None:
        """The context in tokens, None where it is not known."""
        return self.session.n_ctx

    def ask(self, asked: Asked) -> None:
        """Hold all answers, but not thoughts, to a grammar or schema; GrammarError."""
        from ggq.runtime.grammar.compiler import GrammarCompiler

        self._demand = asked.made(GrammarCompiler(self.tokenizer))

    @contextmanager
    def freely(self) -> Iterator[None]:
        """Hold answers to no grammar until the context ends: a summary is not what was asked."""
        demand, self._demand = self._demand, None
        try:
            yield
        finally:
            self._demand = demand

    def clear(self) -> None:
        """Forget all messages but the system message."""
        self.summary = ""
        self.messages = [m for m in self.messages if m["role"] == "system"]

    def prompt(self) -> list[int]:
        """Return the token ids of the conversation up to where the assistant speaks."""
        return self._encode(self._render(self.sent()))

    def sent(self, messages: Sequence[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        """Return the messages, or these, as the model gets them: a summary with the system's."""
        messages = list(self.messages if messages is None else messages)
        if not self.summary:
            return messages
        texts = [self.system, _SUMMARY + self.summary]
        rest = [m for m in messages if m["role"] != "system"]
        return [{"role": "system", "content": "\n\n".join(filter(None, texts))}, *rest]

    def count(self, messages: Sequence[dict[str, Any]] | None = None) -> int:
        """Return how many tokens the prompt has, of the messages or of these."""
        return len(self._encode(self._render(self.sent(messages))))

    def undo(self) -> str:
        """Forget the last question and what came after it; return the question's text."""
        asked = [i for i, m in enumerate(self.messages) if m["role"] == "user"]
        if not asked:
            raise UsageError("there is nothing to undo")
        text = text_of(self.messages[asked[-1]]["content"])
        del self.messages[asked[-1] :]
        return text

    def say(
        self,
        text: str | list[dict[str, Any]],
        params: SamplingParams | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        options: Options | None = None,
    ) -> Generator[Piece, None, None]:
        """Add a user's message and yield the answer; both stay, the answer as far as it got.

        If no answer can be begun (prompt too long, refused by the template) the message goes again.
        """
        self.messages.append({"role": "user", "content": text})
        try:
            pieces = self.answer(params, max_tokens, stop, options)
        except BaseException:
            del self.messages[-1]
            raise
        return pieces

    def regenerate(
        self,
        params: SamplingParams | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        options: Options | None = None,
    ) -> Generator[Piece, None, None]:
        """Drop the last answer and yield another; UsageError if there is none to replace."""
        while self.messages and self.messages[-1]["role"] == "assistant":
            del self.messages[-1]
        if not self.messages or self.messages[-1]["role"] == "system":
            raise UsageError("there is no answer to generate again")
        return self.answer(params, max_tokens, stop, options)

    def answer(
        self,
        params: SamplingParams | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        options: Options | None = None,
    ) -> Generator[Piece, None, None]:
        """Yield the assistant's answer to the messages and append it, even if broken off."""
        return self._answer(self.messages, None, params, max_tokens, stop, options or Options())

    def go_on(
        self,
        params: SamplingParams | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        options: Options | None = None,
    ) -> Generator[Piece, None, None]:
        """Yield what follows the last answer, which it becomes a part of; UsageError without."""
        last = self.messages[-1] if self.messages else {"role": ""}
        if last["role"] != "assistant":
            raise UsageError("there is no answer to go on with")
        *before, begun = self.messages
        return self._answer(before, begun, params, max_tokens, stop, options or Options())

    def _answer(
        self,
        messages: list[dict[str, Any]],
        begun: dict[str, Any] | None,
        params: SamplingParams | None,
        max_tokens: int | None,
        stop: Sequence[str],
        options: Options,
    ) -> Generator[Piece, None, None]:
        """Yield an answer to ``messages``, or what follows the ``begun`` one."""
        segments = self._render(self.sent(messages))
        text = "".join(s.text for s in segments)
        thinking = self._form is not None and self._form.opens(text)
        if begun is not None:
            thoughts, said = begun.get("reasoning_content", ""), begun["content"]
            added = [Segment(said, False)]
            if self._form:
                added, thinking = self._form.begun(said, thoughts, text, thinking)
            segments = [*segments, *added]
            text += "".join(s.text for s in added)
        reader = None
        if self._form:
            reader = self._form.parser({}, thinking, begun is not None)
            options = replace(options, shown=self._shown(self._form))
        constraint = self._constraint(thinking, "" if begun is None else str(begun["content"]))
        options = replace(options, constraint=constraint)
        ids = self._encode(segments)
        pieces = generate(self.session, self.tokenizer, ids, params, max_tokens, stop, options)
        prompt = Prompt(text, ids, begun)
        return self._recorded(
            pieces if reader is None else _read_by(reader, pieces), prompt, options
        )

    def _constraint(self, thinking: bool, begun: str) -> Any:
        make: MakeConstraint | None = self._demand
        if make is None:
            return None
        from ggq.runtime.grammar.compiler import AfterReasoning, begun_with

        if begun:
            make = begun_with(make, self.tokenizer, begun)
        if thinking and self._form:
            return AfterReasoning(make(), self.tokenizer, self._form.think[1])
        return make()

    def _shown(self, form: Form) -> frozenset[int]:
        known = self.tokenizer.ids  # type: ignore[attr-defined]
        return frozenset(known[mark] for mark in form.marks if mark in known)

    def continue_text(
        self,
        text: str,
        params: SamplingParams | None = None,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        options: Options | None = None,
    ) -> Generator[Piece, None, None]:
        """Yield what the model writes after ``text``: no template, no messages kept."""
        ids = self.tokenizer.encode(text)
        options = replace(options or Options(), constraint=self._constraint(False, ""))
        return generate(self.session, self.tokenizer, ids, params, max_tokens, stop, options)

    def _recorded(
        self, pieces: Generator[Piece, None, None], prompt: Prompt, options: Options
    ) -> Generator[Piece, None, None]:
        """Pass pieces on; at the end, unless it is an error, keep the answer and its tokens."""
        said: list[Piece] = []
        try:
            for piece in pieces:
                said.append(piece)
                yield piece
        except (GeneratorExit, KeyboardInterrupt):  # broken off on purpose
            self._record(said, prompt, options.stats.ids)
            raise
        self._record(said, prompt, options.stats.ids)

    def _record(self, said: list[Piece], prompt: Prompt, generated: list[int]) -> None:
        text = "".join(piece.text for piece in said)
        thoughts = "".join(piece.text for piece in said if piece.thought)
        answer = "".join(piece.text for piece in said if not piece.thought)
        begun = prompt.begun or {}
        if prompt.begun is not None:
            del self.messages[-1]
        message = {"role": "assistant", "content": begun.get("content", "") + answer}
        if thoughts := begun.get("reasoning_content", "") + thoughts:
            message["reasoning_content"] = thoughts
        self.messages.append(message)
        # Tokens stand for the text only if nothing was trimmed or hidden on the way.
        exact = not thoughts and text == self._text(generated)
        self._known_text = prompt.text + text if exact else prompt.text
        self._known_ids = [*prompt.ids, *generated] if exact else prompt.ids

    def _text(self, ids: list[int]) -> str:
        stream = self.tokenizer.stream()
        return "".join(map(stream.push, ids)) + stream.flush()

    def _encode(self, segments: list[Segment]) -> list[int]:
        """Return the prompt's ids: known ones for the text they stand for, new ones for the rest.

        A model may write an answer with other tokens than the tokenizer would choose for it.
        """
        text = "".join(segment.text for segment in segments)
        if not self._known_text or not text.startswith(self._known_text):
            return encode_segments(self.tokenizer, segments)
        rest = _after(segments, len(self._known_text))
        return self._known_ids + encode_segments(self.tokenizer, rest, at_start=False)

    # -- files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the messages as JSON; an existing file is replaced only if it is such a file."""
        saved.write(Path(path).expanduser(), self.messages, self.summary)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Replace the messages by those of a saved conversation; UsageError if it is not one."""
        self.messages, self.summary = saved.read(Path(path).expanduser())

    def _render(self, messages: list[dict[str, Any]]) -> list[Segment]:
        return rendered(self.template, messages, self.gallery, **self.template_options)


@dataclass(frozen=True)
class Prompt:
    """What an answer follows: text, tokens, and the answer that was begun, if one was."""

    text: str
    ids: list[int]
    begun: dict[str, Any] | None


def _read_by(reader: Any, pieces: Generator[Piece, None, None]) -> Generator[Piece, None, None]:
    """Yield pieces without the marks around thoughts, each known to be a thought or not."""

    def told(deltas: list[Any], token: int | None = None) -> Iterator[Piece]:
        for delta in deltas:
            yield Piece(delta.text, token, thought=delta.kind == _THOUGHT)

    last = Piece("")
    try:
        for piece in pieces:
            last = piece
            yield from told(reader.push(piece.text), piece.token_id)
    finally:
        pieces.close()
    yield from told(reader.finish())
    yield replace(last, text="", token_id=None)


def _after(segments: Sequence[Segment], start: int) -> list[Segment]:
    """Return the segments' text from character ``start`` on."""
    rest = []
    for segment in segments:
        if start < len(segment.text):
            rest.append(replace(segment, text=segment.text[start:]))
        start = max(start - len(segment.text), 0)
    return rest

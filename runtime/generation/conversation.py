"""A conversation with a model: messages, their prompt, and what of it the cache still holds.

The next prompt begins with the tokens of the last one and of its answer wherever the text allows,
so that a turn evaluates only what is new. It knows nothing about terminals or servers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any

from ggq.errors import UsageError, printable
from ggq.gguf import leftovers
from ggq.outputs import output_file
from ggq.runtime.generation.answer import Piece, Tokenizer
from ggq.runtime.generation.generation import Options, Session, generate
from ggq.runtime.sampling import SamplingParams
from ggq.runtime.template.template import ChatTemplate, Segment, encode_segments

__all__ = ["Conversation", "check_messages", "encode_segments"]

_FORMAT = "ggq-chat-1"
_ROLES = ("system", "user", "assistant", "tool", "developer")


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raise UsageError for what no template can read: a template would write anything."""
    if not messages:
        raise UsageError("messages: is empty")
    for i, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not role:
            raise UsageError(f"messages[{i}]: its role is {printable(repr(role), 40)}, not a text")
        parts = content if isinstance(content, (list, tuple)) else ()
        if not all(isinstance(part, Mapping) for part in parts) or not isinstance(
            content, (str, list, tuple, NoneType)
        ):
            what = printable(repr(content), 40)
            raise UsageError(f"messages[{i}]: its content is {what}, neither a text nor parts")


class Conversation:
    """Messages with one model; ``messages`` are plain dictionaries with role and content."""

    def __init__(
        self,
        session: Session | Callable[[], Session],
        tokenizer: Tokenizer,
        template: ChatTemplate,
        system: str | None = None,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the model's parts; ``template_options`` go to the template with every prompt.

        A ``session`` that is a function is called when the first prompt has passed the template:
        opening one may compile kernels.
        """
        self._session, self.tokenizer, self.template = session, tokenizer, template
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

    def clear(self) -> None:
        """Forget all messages but the system message."""
        self.messages = [m for m in self.messages if m["role"] == "system"]

    def prompt(self) -> list[int]:
        """Return the token ids of the conversation up to where the assistant speaks."""
        return self._encode(self.template.render(self.messages, **self.template_options))

    def say(
        self,
        text: str,
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
        options = options or Options()
        segments = self.template.render(self.messages, **self.template_options)
        ids = self._encode(segments)
        pieces = generate(self.session, self.tokenizer, ids, params, max_tokens, stop, options)
        return self._recorded(pieces, "".join(s.text for s in segments), ids, options)

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
        return generate(self.session, self.tokenizer, ids, params, max_tokens, stop, options)

    def _recorded(
        self, pieces: Iterator[Piece], prompt: str, ids: list[int], options: Options
    ) -> Generator[Piece, None, None]:
        """Pass pieces on; at the end, unless it is an error, keep the answer and its tokens."""
        texts: list[str] = []
        try:
            for piece in pieces:
                texts.append(piece.text)
                yield piece
        except (GeneratorExit, KeyboardInterrupt):  # broken off on purpose
            self._record("".join(texts), prompt, ids, options.stats.ids)
            raise
        self._record("".join(texts), prompt, ids, options.stats.ids)

    def _record(self, answer: str, prompt: str, ids: list[int], generated: list[int]) -> None:
        self.messages.append({"role": "assistant", "content": answer})
        # Tokens stand for the text only if nothing was trimmed or hidden on the way.
        exact = answer == self._text(generated)
        self._known_text = prompt + answer if exact else prompt
        self._known_ids = [*ids, *generated] if exact else ids

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
        path = output_file(Path(path).expanduser())
        if path.exists():
            _read(path)
        data = {"format": _FORMAT, "messages": self.messages}
        leftovers.clear(path)
        partial = leftovers.temporary(path)
        try:
            partial.write_text(json.dumps(data, ensure_ascii=False, indent=1), encoding="utf-8")
            os.replace(partial, path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise UsageError(f"{printable(path)}: {error.strerror}") from None

    def load(self, path: str | os.PathLike[str]) -> None:
        """Replace the messages by those of a saved conversation; UsageError if it is not one."""
        self.messages = _read(Path(path).expanduser())


def _after(segments: Sequence[Segment], start: int) -> list[Segment]:
    """Return the segments' text from character ``start`` on."""
    rest = []
    for segment in segments:
        if start < len(segment.text):
            rest.append(replace(segment, text=segment.text[start:]))
        start = max(start - len(segment.text), 0)
    return rest


def _read(path: Path) -> list[dict[str, Any]]:
    name = printable(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{name} is not a saved conversation: no JSON") from None
    messages = data.get("messages") if isinstance(data, dict) else None
    if not isinstance(messages, list) or data.get("format") != _FORMAT:
        raise UsageError(f"{name} is not a saved conversation")
    for i, message in enumerate(messages):
        known = isinstance(message, dict) and message.get("role") in _ROLES
        if not known or not isinstance(message.get("content"), str):
            raise UsageError(f"{name}: messages[{i}] has no known role and text")
    return messages

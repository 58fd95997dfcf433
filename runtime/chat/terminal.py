"""The chat in a terminal: reads messages, streams answers, makes room where the context is full.

Everything about models and prompts is the conversation's, everything about options and files the
command's; how answers look is the printer's.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ggq.errors import GGQError
from ggq.runtime.chat.screen import Ended, Printer, Stopped
from ggq.runtime.chat.settings import Settings
from ggq.runtime.chat.slash import Commands, Host, Message
from ggq.runtime.generation.answer import Piece
from ggq.runtime.generation.conversation import Conversation
from ggq.runtime.generation.generation import ContextError, Options, Stats

__all__ = ["CONTINUED", "PROMPT", "QUOTES", "Chat", "dropped_picture"]

PROMPT, CONTINUED, QUOTES = ">>> ", "... ", '"""'
_COMMAND = re.compile(r"/[a-z?]+( .*)?")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_ROOM = "[d]rop the oldest messages, [s]ummarize them, or [n]either? "


class Chat(Commands):
    """The interactive loop over one conversation."""

    def __init__(
        self,
        conversation: Conversation,
        settings: Settings,
        printer: Printer,
        read: Callable[[str], str],
        host: Host,
        show_stats: bool = True,
    ) -> None:
        """Take the conversation, what to read messages with and where to write."""
        super().__init__()
        self.conversation, self.settings, self.printer = conversation, settings, printer
        self.host, self._show_stats = host, show_stats
        self._dialogue = False  # or one answer
        self.read_with(read)

    def read_with(self, read: Callable[[str], str]) -> None:
        """Read messages with this; its ``ask``, where it has one, asks questions."""
        self._read = read
        self._ask = getattr(read, "ask", read)  # questions are no part of the history

    def loop(self) -> None:
        """Read, answer, repeat, until /bye or the end of input."""
        self.printer.unfold, self._dialogue = "/thoughts shows it", True
        while True:
            try:
                text = self._message()
            except EOFError:
                self.printer.note("")
                return
            except Stopped:
                self.printer.note("(stopped)")
                continue
            except KeyboardInterrupt:
                self.printer.note("(Ctrl-D or /bye leaves)")
                continue
            try:
                if text.startswith("/") and _COMMAND.fullmatch(text.rstrip()):
                    if self.run_command(text.rstrip()):
                        return
                elif (dropped := dropped_picture(text)) is not None:
                    self.show(dropped)
                elif text.strip():
                    self._say(self.attached(text))
            except GGQError as error:
                self.printer.note(f"error: {error}")
            except KeyboardInterrupt:
                self.printer.note("(stopped)")

    def _say(self, text: Message) -> None:
        """Answer a message; where the context is full, make room as the user wants it."""
        try:
            ended = self.answer(self.conversation.say, text)
        except ContextError as error:
            before = list(self.conversation.messages)
            if all(message["role"] == "system" for message in before):
                raise  # the message alone is too long
            self.conversation.messages.append({"role": "user", "content": text})
            try:
                if self._make_room(f"the context is full: {error}"):
                    self.answer(self.conversation.answer)
                else:
                    self.conversation.messages = before
            except BaseException:
                if self.conversation.messages[-1:] == [{"role": "user", "content": text}]:
                    self.conversation.messages = before
                raise
            return
        if ended.reason == "length" and self._is_full():
            told = "the context is full: the answer is cut off here"
            if self._make_room(told):
                self.answer(self.conversation.go_on)

    def answer(self, start: Callable[..., Generator[Piece, None, None]], *args: Any) -> Ended:
        """Stream one answer, if one is possible; return how it ended.

        A question whose answer was stopped before it began is taken back: two in a row are
        refused by many templates.
        """
        before, stats = list(self.conversation.messages), Stats()
        try:
            pieces = start(
                *args,
                self.settings.params(),
                self.settings.max_tokens,
                self.settings.stop,
                Options(stats=stats),
            )
            ended = self.printer.stream(pieces)
        except GGQError:
            self.conversation.messages = before
            raise
        except KeyboardInterrupt:  # before the first piece
            ended = Ended(interrupted=True)
        if ended.interrupted and not _answered(self.conversation.messages):
            self.conversation.messages = before
        self._used = stats.prompt_tokens + stats.generated_tokens
        if ended.interrupted:
            self.printer.note("(stopped)")
        elif ended.reason == "length" and self._dialogue and not self._is_full():
            self.printer.note("(cut off at the longest answer allowed; /continue goes on)")
        elif ended.reason == "length" and not self._dialogue and self._is_full():
            self.printer.note("(the context is full: the answer is cut off; --ctx makes room)")
        if self._show_stats and stats.generated_tokens:
            self.printer.note(f"[{stats.line()}]")
        return ended

    def _is_full(self) -> bool:
        n_ctx = self.conversation.n_ctx
        return n_ctx is not None and self._used >= n_ctx - 1

    def _make_room(self, told: str) -> bool:
        """Ask how to go on with a full context; return whether there is room now."""
        self.printer.note(f"({told})")
        try:
            chosen = self._ask(_ROOM).strip().lower()[:1]
        except (EOFError, KeyboardInterrupt):
            chosen = "n"
        if chosen == "d":
            self.do_drop("")
        elif chosen == "s":
            self.do_summarize("")
        else:
            self.printer.note("(/drop and /summarize make room, /clear forgets all)")
        return chosen in ("d", "s")

    def _message(self) -> str:
        """Read one message: what was typed or pasted, without the triple quotes around it."""
        text = self._read(PROMPT)
        while text.endswith("\\"):
            text = f"{text[:-1]}\n{self._read(CONTINUED)}"
        if not text.lstrip().startswith(QUOTES):
            return text
        text = text.lstrip().removeprefix(QUOTES)
        while QUOTES not in text:
            text += "\n" + self._read(CONTINUED)
        return text.partition(QUOTES)[0].removeprefix("\n").removesuffix("\n")


def _answered(messages: list[dict[str, Any]]) -> bool:
    """Tell whether the last message is an answer with anything in it."""
    last = messages[-1] if messages else {"role": ""}
    said = last.get("content") or last.get("reasoning_content")
    return last["role"] == "assistant" and bool(said)


def dropped_picture(text: str) -> Path | None:
    """Return the picture file that a message is the path of, as terminals write a dropped one.

    Quoted, with backslashes, or as a file: URL; None for anything else.
    """
    text = text.strip()
    if "\n" in text or not text.lower().rstrip("'\"").endswith(_PICTURES):
        return None
    try:
        words = [text] if Path(text).is_file() else shlex.split(text)
    except (ValueError, OSError):
        return None
    if len(words) != 1:
        return None
    name = unquote(urlsplit(words[0]).path) if words[0].startswith("file:") else words[0]
    path = Path(name).expanduser()
    return path if path.is_absolute() and path.is_file() else None

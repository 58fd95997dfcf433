"""The chat in a terminal: reads lines, streams answers, knows the slash commands.

Everything about models and prompts is the conversation's; everything about options and files the
command's. Answers go to ``out``; notes, statistics and questions to ``err``.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ggq.errors import GGQError, UsageError, printable
from ggq.paths import user_cache_dir
from ggq.runtime.generation.answer import Piece
from ggq.runtime.generation.conversation import Conversation
from ggq.runtime.generation.generation import Options, Stats
from ggq.runtime.sampling import SamplingParams
from ggq.runtime.sampling.params import choose

PROMPT, CONTINUED = ">>> ", "... "
QUOTES = '"""'
_HISTORY_LINES = 1000


@dataclass
class Settings:
    """What ``/set`` can change: sampling flags that the user set, and the length of answers."""

    flags: dict[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)  # the file's general.sampling.*
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()

    def params(self) -> SamplingParams:
        """Return the sampling parameters; UsageError or FormatError for wrong ones."""
        return SamplingParams.resolve(self.flags, self.metadata)

    def lines(self) -> Iterator[str]:
        """Yield each value and where it comes from."""
        for name, (value, source) in choose(self.flags, self.metadata).items():
            if isinstance(value, (int, float, str)) or value is None:
                yield f"{name} = {value}{f'  ({source})' if source else ''}"
        yield f"max_tokens = {self.max_tokens}"

    def change(self, name: str, text: str) -> None:
        """Set one value from text; "default" takes it back. Raises UsageError."""
        name = name.replace("-", "_")
        name = {"temp": "temperature", "n": "max_tokens"}.get(name, name)
        value = None if text == "default" else _parsed(text)
        if name == "max_tokens":
            if value is not None and not isinstance(value, int):
                raise UsageError(f"max_tokens: {printable(text)} is not a whole number")
            self.max_tokens = value
            return
        changed = {k: v for k, v in {**self.flags, name: value}.items() if v is not None}
        known = {f.name for f in dataclasses.fields(SamplingParams)}
        if name not in known - {"logit_bias", "dry_breakers"}:
            raise UsageError(f"no setting {printable(name)!r}; /set shows them all")
        SamplingParams.resolve(changed, self.metadata)
        self.flags = changed


class Printer:
    """Streams answers: on a terminal without control characters that a model may emit."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        """Take the streams for answers and for notes."""
        self._out, self._err = out, err
        self._filter = out.isatty()

    def stream(self, pieces: Generator[Piece, None, None]) -> bool:
        """Write the pieces as they come; return whether Ctrl-C ended them."""
        last, interrupted = "", False
        try:
            for piece in pieces:
                last = piece.text or last
                self._out.write(visible(piece.text) if self._filter else piece.text)
                self._out.flush()
        except KeyboardInterrupt:
            interrupted = True
            pieces.close()
        if not last.endswith("\n"):
            self._out.write("\n")
        self._out.flush()
        return interrupted

    def note(self, text: str) -> None:
        """Write a line that is no answer."""
        self._err.write(text + "\n")
        self._err.flush()


class Chat:
    """The interactive loop over one conversation."""

    def __init__(
        self,
        conversation: Conversation,
        settings: Settings,
        printer: Printer,
        read: Callable[[str], str],
        show_stats: bool = True,
    ) -> None:
        """Take the conversation, what to read lines with and where to write."""
        self.conversation, self.settings, self.printer = conversation, settings, printer
        self._read, self._show_stats = read, show_stats
        self._commands = {
            name.removeprefix("do_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("do_")
        }

    def loop(self) -> None:
        """Read, answer, repeat, until /exit or the end of input."""
        while True:
            try:
                text = self._message()
            except EOFError:
                self.printer.note("")
                return
            except KeyboardInterrupt:
                self.printer.note("\n(Ctrl-D or /exit leaves)")
                continue
            try:
                if text.startswith("/"):
                    if self._command(text):
                        return
                elif text.strip():
                    self.answer(self.conversation.say, text)
            except GGQError as error:
                self.printer.note(f"error: {error}")

    def answer(self, start: Callable[..., Generator[Piece, None, None]], *args: str) -> bool:
        """Stream one answer, if one is possible; return whether Ctrl-C ended it."""
        before, stats = list(self.conversation.messages), Stats()
        try:
            pieces = start(
                *args,
                self.settings.params(),
                self.settings.max_tokens,
                self.settings.stop,
                Options(stats=stats),
            )
            interrupted = self.printer.stream(pieces)
        except GGQError:
            self.conversation.messages = before
            raise
        except KeyboardInterrupt:  # before the first piece
            interrupted = True
        if interrupted:
            self.printer.note("(stopped)")
        if self._show_stats and stats.generated_tokens:
            self.printer.note(f"[{stats.line()}]")
        return interrupted

    def _message(self) -> str:
        """Read one message: a line, or lines between triple quotes."""
        line = self._read(PROMPT)
        if not line.lstrip().startswith(QUOTES):
            return line
        line = line.lstrip().removeprefix(QUOTES)
        lines = []
        while QUOTES not in line:
            lines.append(line)
            line = self._read(CONTINUED)
        lines.append(line.partition(QUOTES)[0])
        return "\n".join(lines).removeprefix("\n").removesuffix("\n")

    def _command(self, text: str) -> bool:
        """Run a slash command; return whether to leave."""
        name, _, argument = text[1:].partition(" ")
        run = self._commands.get(name)
        if run is None:
            raise UsageError(
                f"unknown command /{printable(name)}: /help lists them, a space in front sends text"
            )
        return bool(run(argument.strip()))

    # -- commands: the docstring is the help

    def do_help(self, argument: str) -> None:
        """show this list"""
        for name, run in sorted(self._commands.items()):
            usage, _, about = run.__doc__.rpartition(": ")
            self.printer.note(f"/{f'{name} {usage}':<22} {about}")
        self.printer.note(f"{QUOTES:<23} begin and end a message of several lines")

    def do_clear(self, argument: str) -> None:
        """forget the conversation, keep the system message"""
        self.conversation.clear()

    def do_system(self, argument: str) -> None:
        """[TEXT]: set the system message, or show it; "none" removes it"""
        if argument:
            self.conversation.set_system(None if argument == "none" else argument)
        else:
            self.printer.note(visible(self.conversation.system or "(no system message)"))

    def do_set(self, argument: str) -> None:
        """[NAME VALUE]: change a setting ("default" resets it), or show all"""
        name, _, value = argument.partition(" ")
        if value:
            self.settings.change(name, value.strip())
        elif name:
            raise UsageError("usage: /set NAME VALUE")
        else:
            for line in self.settings.lines():
                self.printer.note(visible(line))

    def do_regen(self, argument: str) -> None:
        """answer the last message again"""
        self.answer(self.conversation.regenerate)

    def do_save(self, argument: str) -> None:
        """FILE: save the conversation as JSON"""
        self.conversation.save(_path(argument, "save"))
        self.printer.note(f"saved to {printable(argument)}")

    def do_load(self, argument: str) -> None:
        """FILE: go on with a saved conversation"""
        self.conversation.load(_path(argument, "load"))
        self.printer.note(f"{len(self.conversation.messages)} messages")

    def do_exit(self, argument: str) -> bool:
        """leave (also Ctrl-D)"""
        return True


def line_reader() -> Callable[[str], str]:
    """Return ``input``, with line editing and a history over sessions where the system has it."""
    try:
        import readline
    except ImportError:
        return input
    path = user_cache_dir() / "chat_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY, 0o600))
        readline.read_history_file(path)
        readline.set_history_length(_HISTORY_LINES)
    except OSError:  # no place for a history: none then
        return input

    def save() -> None:
        with contextlib.suppress(OSError):
            readline.write_history_file(path)

    atexit.register(save)
    return input


def visible(text: str) -> str:
    """Return ``text`` with control characters other than line ends and tabs made visible."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\t" or ord(c) > 0x9F else _shown(c) for c in text
    )


def _shown(char: str) -> str:
    return "" if char == "\r" else f"\\x{ord(char):02x}"


def _parsed(text: str) -> Any:
    """Return ``text`` as a number if it is one."""
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return text


def _path(argument: str, command: str) -> Path:
    if not argument:
        raise UsageError(f"usage: /{command} FILE")
    return Path(argument)

"""The slash commands of a chat: each is a method ``do_NAME``, its docstring is the help."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, Protocol

from ggq.errors import UsageError, known_names, printable, reason
from ggq.runtime.chat.clipboard import copy
from ggq.runtime.chat.screen import FOLD, HIDE, SHOW, Ended, Printer, visible
from ggq.runtime.chat.settings import Settings
from ggq.runtime.generation.conversation import Conversation
from ggq.runtime.generation.generation import ContextError
from ggq.runtime.generation.room import drop_oldest, summarize_oldest
from ggq.runtime.pictures.opening import Picture, read_picture
from ggq.runtime.pictures.rendering import BLIND, IMAGE

__all__ = ["ALIASES", "Commands", "Host"]

ALIASES = {"exit": "bye", "quit": "bye", "?": "help", "retry": "regen"}
Message = str | list[dict[str, Any]]  # a text, or texts and pictures
_LARGEST = 16 << 20  # bytes of a file that can be attached
_FENCE = "```"
_HELP = re.compile(r"(?:(\[.*?\]|FILE): )?(.*)")  # usage, if any, and what it does


class Host(Protocol):
    """Where a chat's models come from: this machine, or a server."""

    def info(self) -> Iterable[str]:
        """Return lines about the model in use."""

    def models(self) -> Iterable[str]:
        """Return the names of models that can be changed to."""

    def change(self, name: str | None, n_ctx: int | None) -> Conversation:
        """Return a conversation with another model or context, the same messages in it."""


class Commands:
    """What a chat understands besides messages."""

    conversation: Conversation
    settings: Settings
    printer: Printer
    host: Host

    def __init__(self) -> None:
        """Find the commands."""
        names = [name for name in dir(self) if name.startswith("do_")]
        self._commands = {name.removeprefix("do_"): getattr(self, name) for name in names}
        self._attached: list[str] = []
        self.pictures: list[Picture] = []  # that go with the next message

    def answer(self, start: Callable[..., Generator[Any, None, None]], *args: Any) -> Ended:
        """Stream an answer."""
        raise NotImplementedError

    def usages(self) -> dict[str, tuple[str, str]]:
        """Return usage and help of every command."""
        found = {}
        for name, run in self._commands.items():
            match = _HELP.fullmatch(run.__doc__ or "")
            assert match
            found[name] = match[1] or "", match[2]
        return found

    def run_command(self, text: str) -> bool:
        """Run a slash command; return whether to leave."""
        name, _, argument = text[1:].partition(" ")
        run = self._commands.get(ALIASES.get(name, name))
        if run is None:
            near = known_names(name, self._commands)
            hint = near if near.startswith("did you") else "/help lists them"
            raise UsageError(
                f"unknown command /{printable(name)}: {hint} (a space in front sends it as text)"
            )
        return bool(run(argument.strip()))

    def attached(self, text: str) -> Message:
        """Return a message with the files and pictures that wait for it."""
        message: Message = "\n\n".join([*self._attached, text])
        if self.pictures:
            shown = [{"type": IMAGE, "picture": picture} for picture in self.pictures]
            message = [*shown, {"type": "text", "text": message}]
        self._attached, self.pictures = [], []
        return message

    # -- the commands

    def do_help(self, argument: str) -> None:
        """show this list"""
        for name, (usage, about) in sorted(self.usages().items()):
            self.printer.note(f"/{f'{name} {usage}':<25} {about}")
        for keys, about in (
            ("Enter", "send; what is pasted is one message"),
            ("Alt-Enter, \\ at the end", "begin a line"),
            ('""" ... """', "a message of several lines"),
            ("Up, Ctrl-R", "go back to, or search, earlier messages"),
            ("a dropped picture file", "show it with the next message"),
            ("Tab", "complete commands, files and models"),
            ("Ctrl-X Ctrl-E", "write the message in an editor"),
            ("Ctrl-C, Ctrl-D", "stop the answer; leave"),
        ):
            self.printer.note(f"{keys:<26} {about}")

    def do_info(self, argument: str) -> None:
        """show the model and how full its context is"""
        for line in self.host.info():
            self.printer.note(visible(line))
        self.do_ctx("")

    def do_model(self, argument: str) -> None:
        """[NAME]: go on with another model, or list those at hand"""
        if argument:
            self.conversation = self.host.change(argument, None)
            self.do_ctx("")
        else:
            for name in self.host.models():
                self.printer.note(printable(name))

    def do_ctx(self, argument: str) -> None:
        """[TOKENS]: show how full the context is, or change its size"""
        if argument:
            if not argument.isdigit():
                raise UsageError("usage: /ctx TOKENS (0: as many as the model was trained for)")
            self.conversation = self.host.change(None, int(argument))
        talk = self.conversation
        used, n_ctx = talk.count() if talk.messages else 0, talk.n_ctx
        share = f" of {n_ctx}, {100 * used / n_ctx:.0f} %" if n_ctx else ""
        summary = ", and a summary of earlier ones" if talk.summary else ""
        about = "" if talk.counts else "about "
        self.printer.note(
            f"context: {about}{used} tokens used{share}; {len(talk.messages)} messages{summary}"
        )

    def do_file(self, argument: str) -> None:
        """FILE: send a text file with the next message"""
        path = _path(argument, "file")
        try:
            if path.stat().st_size > _LARGEST:
                raise UsageError(f"{printable(path)}: has more than {_LARGEST >> 20} MiB")
            text = path.read_bytes().decode("utf-8")
        except OSError as error:
            raise UsageError(f"{printable(path)}: {reason(error)}") from None
        except UnicodeDecodeError:
            raise UsageError(f"{printable(path)}: is no text (UTF-8)") from None
        fence = _FENCE
        while fence in text:
            fence += "`"
        self._attached.append(f"{path.name}:\n{fence}\n{text.rstrip()}\n{fence}")
        tokens = self.conversation.count([{"role": "user", "content": self._attached[-1]}])
        self.printer.note(f"{printable(path.name)}, {tokens} tokens, goes with the next message")

    def do_image(self, argument: str) -> None:
        """FILE: show a picture with the next message"""
        self.show(_path(argument, "image"))

    def show(self, path: Path) -> None:
        """Open a picture for the next message; UsageError where the model or the file is wrong."""
        self._check_sees()
        picture = read_picture(path)
        self.hold(picture)
        size, gallery = f"{picture.width} x {picture.height}", self.conversation.gallery
        tokens = f", {gallery.show(picture).n_tokens} tokens" if gallery else ""
        self.printer.note(f"{printable(path.name)}, {size}{tokens}, goes with the next message")

    def hold(self, picture: Picture) -> None:
        """Keep a picture for the next message; UsageError where the model cannot take it."""
        self._check_sees()
        if self.conversation.gallery is not None:
            self.conversation.gallery.check_room([*self.pictures, picture])
        self.pictures.append(picture)

    def _check_sees(self) -> None:
        if self.conversation.gallery is None and self.conversation.counts:  # a server may see
            raise UsageError(BLIND)

    def do_clear(self, argument: str) -> None:
        """forget the conversation, keep the system message"""
        self.conversation.clear()
        self._attached, self.pictures = [], []

    def do_undo(self, argument: str) -> None:
        """forget the last message and its answer"""
        text = visible(self.conversation.undo())
        self.printer.note(f"forgotten: {printable(text, 60)}")

    def do_drop(self, argument: str) -> None:
        """forget the oldest messages until half is free"""
        self.printer.note(f"{drop_oldest(self.conversation)} messages forgotten")

    def do_summarize(self, argument: str) -> None:
        """have the model summarize the oldest messages"""
        self.printer.note("summarizing ...")
        n = summarize_oldest(self.conversation, self.settings.params())
        self.printer.note(f"{n} messages summarized" if n else "there is room enough")
        if n:
            self.printer.note(visible(self.conversation.summary))

    def do_copy(self, argument: str) -> None:
        """[code]: copy the last answer, or its last code block"""
        said = [m["content"] for m in self.conversation.messages if m["role"] == "assistant"]
        if not said:
            raise UsageError("there is no answer to copy")
        text = said[-1]
        if argument == "code":
            blocks = text.split(_FENCE)[1::2]
            if not blocks:
                raise UsageError("there is no block of code in the last answer")
            text = blocks[-1].partition("\n")[2].removesuffix("\n")
        elif argument:
            raise UsageError("usage: /copy, or /copy code")
        how = copy(text, sys.stdout if sys.stdout.isatty() else sys.stderr)
        self.printer.note(f"{len(text)} characters copied {how}")

    def do_thoughts(self, argument: str) -> None:
        """[fold|show|hide]: print the last thoughts, or how to show them"""
        if argument:
            if argument not in (FOLD, SHOW, HIDE):
                raise UsageError("usage: /thoughts fold, show or hide")
            self.printer.thoughts = argument
            return
        found = [t for m in self.conversation.messages if (t := m.get("reasoning_content"))]
        self.printer.note(visible(found[-1].strip()) if found else "(no thoughts)")

    def do_think(self, argument: str) -> None:
        """[on|off]: ask for thinking answers, or plain ones"""
        options = self.conversation.template_options
        if argument:
            if argument not in ("on", "off"):
                raise UsageError("usage: /think on, or /think off")
            options["enable_thinking"] = argument == "on"
        now = {None: "as the model does unasked", True: "on", False: "off"}
        self.printer.note(f"thinking: {now[options.get('enable_thinking')]}")

    def do_system(self, argument: str) -> None:
        """[TEXT]: set the system message (none: no more), or show"""
        if argument:
            self.conversation.set_system(None if argument == "none" else argument)
        else:
            self.printer.note(visible(self.conversation.system or "(no system message)"))

    def do_set(self, argument: str) -> None:
        """[SETTING VALUE]: change one ("default" resets), or show all"""
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

    def do_continue(self, argument: str) -> None:
        """go on with an answer that was cut off"""
        try:
            self.answer(self.conversation.go_on)
        except ContextError:
            self.printer.note(f"{drop_oldest(self.conversation)} messages forgotten")
            self.answer(self.conversation.go_on)

    def do_save(self, argument: str) -> None:
        """FILE: save the conversation as JSON"""
        self.conversation.save(_path(argument, "save"))
        self.printer.note(f"saved to {printable(argument)}")

    def do_load(self, argument: str) -> None:
        """FILE: go on with a saved conversation"""
        self.conversation.load(_path(argument, "load"))
        self.printer.note(f"{len(self.conversation.messages)} messages")

    def do_bye(self, argument: str) -> bool:
        """leave (also /exit and Ctrl-D)"""
        return True


def _path(argument: str, command: str) -> Path:
    if not argument:
        raise UsageError(f"usage: /{command} FILE")
    return Path(argument.strip("\"'")).expanduser()

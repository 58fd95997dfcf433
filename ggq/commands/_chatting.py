"""What ``ggq chat`` and ``ggq run`` share: options, opening the model, one answer or a dialogue."""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from ggq.commands._cache import DISK, cache_options
from ggq.commands._devices import CTX, DEVICE_OPTIONS, THREADS
from ggq.commands._draft import DRAFT_OPTIONS
from ggq.commands._grammar import GRAMMAR_OPTIONS, asked
from ggq.commands._lora import LORA
from ggq.commands._models import MODEL, YES
from ggq.commands._pictures import MMPROJ
from ggq.commands._sampling import sampling_flags, sampling_options
from ggq.commands._types import Command
from ggq.errors import UsageError, printable
from ggq.runtime.sampling import SamplingParams

__all__ = ["GROUPS", "chat_options", "start"]

_OPTIONS = (
    MODEL,
    click.option(
        "-p",
        "--prompt",
        metavar="TEXT",
        help="Answer this, followed by what is piped in, and exit; -: only the pipe.",
    ),
    click.option(
        "--image",
        multiple=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Show this picture with the first message; repeatable.",
    ),
    click.option("-s", "--system", metavar="TEXT", help="System message."),
    click.option(
        "-n",
        "--max-tokens",
        type=int,
        help="Most tokens of an answer; default: what fits the context.",
    ),
    click.option(
        "--stop", multiple=True, metavar="TEXT", help="End the answer at this text; repeatable."
    ),
    CTX,
    THREADS,
    *cache_options(),
    DISK,
    *DEVICE_OPTIONS,
    *DRAFT_OPTIONS,
    LORA,
    *GRAMMAR_OPTIONS,
    MMPROJ,
    click.option(
        "--raw", is_flag=True, help="Complete the text as it is, without a chat template."
    ),
    click.option(
        "--template",
        metavar="NAME",
        help="Use the chat template of this name, of several in the file.",
    ),
    click.option(
        "--think/--no-think",
        default=None,
        help="Ask the model to think before it answers, or not to.",
    ),
    click.option(
        "--thoughts",
        type=click.Choice(["fold", "show", "hide"]),
        default="fold",
        show_default=True,
        help="How thoughts are shown; fold: as one line.",
    ),
    click.option("--plain", is_flag=True, help="Show answers as they are: no Markdown, no colour."),
    click.option("--stats/--no-stats", default=None, help="Show the speed after each answer."),
    click.option(
        "--server", metavar="URL", help="Talk with the model of a running server (ggq serve)."
    ),
    click.option("--server-key", metavar="KEY", help="The server's API key."),
    YES,
    click.option("-v", "--verbose", is_flag=True, help="Show the model's path and all settings."),
)
_PATIENCE = 2.0  # seconds without a word from a pipe before it is told that one is read


GROUPS = {
    "Prompt and answer": (
        "prompt", "system", "image", "max_tokens", "stop", "grammar", "grammar_file",
        "json_schema", "json_schema_file", "think", "raw", "template",
    ),
    "Screen": ("thoughts", "plain", "stats", "verbose"),
    "Model": ("model_option", "yes", "lora", "mmproj", "server", "server_key"),
    "Memory and speed": (
        "ctx", "threads", "cache_type", "cache_type_k", "cache_type_v", "cache_disk", "device",
        "device_weights", "no_mmap", "draft", "draft_max",
    ),
    "Sampling": tuple(f.name for f in fields(SamplingParams)),
}  # fmt: skip


def chat_options(function: Command) -> Command:
    """Decorate a command with the options of both commands."""
    function = sampling_options(function)
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def start(reference: str | None, options: dict[str, Any], dialogue: bool) -> None:
    """Open the model; answer the prompt and what is piped in, else talk."""
    from ggq.commands._hosts import LocalHost, RemoteHost, variables
    from ggq.runtime.chat.settings import Settings
    from ggq.runtime.pictures.opening import read_picture

    pictures = [read_picture(path) for path in options["image"]]
    if pictures and options["raw"]:
        raise click.UsageError("--image: not with --raw: the template says where a picture stands")
    settings = Settings(sampling_flags(options), {}, options["max_tokens"], options["stop"])
    try:
        settings.params()  # wrong flags are told before anything is read or fetched
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    demand = asked(options)
    printer = _printer(options)
    if options["server"]:
        from ggq.runtime.chat.remote import RemoteConversation

        if options["raw"]:
            raise click.UsageError("--raw needs the model here, not on a server")
        if options["mmproj"]:
            raise click.UsageError("--mmproj needs the model here: a server is told at its start")
        if options["lora"]:
            raise click.UsageError("--lora needs the model here: a server is told when it starts")
        url, key, system = options["server"], options["server_key"], options["system"]
        remote = RemoteConversation(url, key, system, variables(options))
        remote.model = reference
        if demand:
            remote.ask(demand)
        prompt = _prompt(options["prompt"], dialogue)
        _talk(remote, RemoteHost(remote), settings, printer, prompt, options | {"shown": pictures})
        return
    prompt = _prompt(options["prompt"], dialogue and not options["raw"])
    with LocalHost(options, settings, printer, demand) as host:
        conversation = host.open(reference)
        if options["verbose"]:
            _tell(printer, host, settings)
        _talk(conversation, host, settings, printer, prompt, options | {"shown": pictures})


def _talk(
    conversation: Any,
    host: Any,
    settings: Any,
    printer: Any,
    prompt: str | None,
    options: dict[str, Any],
) -> None:
    from ggq.runtime.chat.terminal import Chat

    stats = options["stats"]
    shows = bool(stats) if prompt is not None else stats is not False
    chat = Chat(conversation, settings, printer, input, host, shows)
    for picture in options["shown"]:
        chat.hold(picture)
    if prompt is not None:
        said = prompt if options["raw"] else chat.attached(prompt)
        say = conversation.continue_text if options["raw"] else conversation.say
        if chat.answer(say, said).interrupted:
            raise KeyboardInterrupt
        return
    if hasattr(host, "warm_up"):
        host.warm_up()
    chat.read_with(_reader(chat, host))
    printer.note("Type a message; /help lists the commands, Ctrl-D leaves.")
    chat.loop()


def _printer(options: dict[str, Any]) -> Any:
    """Return what shows answers: rendered on a terminal that can, else as they are."""
    out, err, thoughts = sys.stdout, sys.stderr, options["thoughts"]
    asked = options["plain"] or options["raw"]
    plain = asked or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if sys.platform == "win32" and not plain:
        from rich.console import Console

        plain = Console(file=out).legacy_windows  # it knows no escape sequences
    if plain or not out.isatty():
        from ggq.runtime.chat.screen import Printer

        return Printer(out, err, thoughts)
    from ggq.runtime.chat.rendered import Rendered

    return Rendered(out, err, thoughts)


def _reader(chat: Any, host: Any) -> Any:
    from ggq.runtime.chat.completing import Completer
    from ggq.runtime.chat.prompt import Reader

    def settings() -> list[str]:
        return [line.partition(" =")[0] for line in chat.settings.lines()]

    words = {
        "[NAME]": host.models,
        "[SETTING": settings,
        "[fold|show|hide]": lambda: ["fold", "show", "hide"],
        "[on|off]": lambda: ["on", "off"],
        "[code]": lambda: ["code"],
    }
    return Reader(Completer(chat.usages(), words))


def _prompt(given: str | None, dialogue: bool) -> str | None:
    """Return what to answer: the prompt, and after it what is piped in; None for a dialogue."""
    if given == "-":
        given = None
        text = _piped(wait=True)
    elif sys.stdin is None or sys.stdin.isatty():
        if given is None:
            if dialogue:
                return None
            raise click.UsageError("no prompt: give one, or pipe it in")
        text = ""
    else:
        text = _piped(wait=given is None)
    parts = [part for part in (given, text) if part and part.strip()]
    if not parts:
        raise UsageError("the prompt is empty")
    return "\n\n".join(parts)


def _piped(wait: bool) -> str:
    """Return what is piped in; told where nothing comes for a while and it is not asked for."""
    from threading import Timer

    told = "reading what is piped in, after the prompt; < /dev/null where nothing is to come"
    timer = Timer(_PATIENCE, lambda: click.echo(told, err=True))
    timer.daemon = True
    if not wait:
        timer.start()
    try:
        return sys.stdin.buffer.read().decode("utf-8", "replace")
    except OSError:
        if wait:
            raise
        return ""  # nothing is piped in that could be read: the prompt is all
    finally:
        timer.cancel()


def _tell(printer: Any, host: Any, settings: Any) -> None:
    printer.note(f"model = {printable(host.path, 400)}")
    printer.note(f"context = {host.model.n_ctx}")
    for line in settings.lines():
        printer.note(printable(line, 400))

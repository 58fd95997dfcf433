"""What ``ggq chat`` and ``ggq run`` share: options, opening the model, one answer or a dialogue."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ggq.commands._cache import cache_options, cache_type
from ggq.commands._devices import DEVICE_OPTIONS, weights
from ggq.commands._draft import DRAFT_OPTIONS, drafting
from ggq.commands._models import YES, model_path
from ggq.commands._sampling import sampling_flags, sampling_options
from ggq.commands._types import Command
from ggq.errors import UsageError, printable

_OPTIONS = (
    click.option("-p", "--prompt", metavar="TEXT", help="Answer this and end; - reads stdin."),
    click.option("-s", "--system", metavar="TEXT", help="System message."),
    click.option("-n", "--max-tokens", type=int, help="Longest answer; default: the context."),
    click.option("--stop", multiple=True, metavar="TEXT", help="End the answer here; repeatable."),
    click.option("-c", "--ctx", type=int, help="Context in tokens; 0: the model's own."),
    click.option("-t", "--threads", type=int, help="Threads; default: the physical cores."),
    *cache_options(),
    *DEVICE_OPTIONS,
    *DRAFT_OPTIONS,
    click.option("--raw", is_flag=True, help="Continue the text itself, without a chat template."),
    click.option("--template", metavar="NAME", help="A named chat template of the file."),
    click.option("--think/--no-think", default=None, help="Ask for a thinking answer, or a plain."),
    click.option("--stats/--no-stats", default=None, help="Tell the speed after each answer."),
    click.option("--server", metavar="URL", help="Talk with a running server (ggq serve)."),
    click.option("--server-key", metavar="KEY", help="The server's API key."),
    YES,
    click.option("-v", "--verbose", is_flag=True, help="Show the chosen values."),
)


def chat_options(function: Command) -> Command:
    """Decorate a command with the options of both commands."""
    function = sampling_options(function)
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def start(reference: str | None, options: dict[str, Any], dialogue: bool) -> None:
    """Open the model; answer the prompt, or stdin where that is no terminal, else talk."""
    from ggq.models.hparams import check_generates
    from ggq.runtime.chat.terminal import Printer, Settings
    from ggq.runtime.model import load

    settings = Settings(sampling_flags(options), {}, options["max_tokens"], options["stop"])
    try:
        settings.params()  # wrong flags are told before anything is read or fetched
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    prompt = _prompt(options["prompt"], dialogue and not options["raw"])
    if options["server"]:
        _converse_remotely(settings, Printer(sys.stdout, sys.stderr), prompt, options)
        return
    path = model_path(reference, options["yes"])
    limits = {"n_ctx": options["ctx"], "threads": options["threads"]}
    kinds = {n: options[n] for n in ("device", "device_weights")} | drafting(options)
    printer = Printer(sys.stdout, sys.stderr)
    with load(weights(path, options), cache_type=cache_type(options), **limits, **kinds) as model:
        check_generates(model.hparams)
        for warning in model.warnings:
            printer.note(f"warning: {printable(warning, 400)}")
        settings.metadata = model.gguf.metadata
        if options["verbose"]:
            _tell(printer, path, model, settings)
        _converse(model, settings, printer, prompt, options)


def _converse(
    model: Any, settings: Any, printer: Any, prompt: str | None, options: dict[str, Any]
) -> None:
    from ggq.runtime.generation.conversation import Conversation
    from ggq.runtime.template.template import ChatTemplate

    name = options["template"]
    template = ChatTemplate.from_gguf(model.gguf, name) if name else model.template
    conversation = Conversation(
        model.session, model.tokenizer, template, options["system"], _variables(options)
    )
    _talk(conversation, settings, printer, prompt, options)


def _converse_remotely(
    settings: Any, printer: Any, prompt: str | None, options: dict[str, Any]
) -> None:
    from ggq.runtime.chat.remote import RemoteConversation

    if options["raw"]:
        raise click.UsageError("--raw needs the model here, not on a server")
    url, key, system = options["server"], options["server_key"], options["system"]
    conversation = RemoteConversation(url, key, system, _variables(options))
    _talk(conversation, settings, printer, prompt, options)


def _variables(options: dict[str, Any]) -> dict[str, Any]:
    return {} if options["think"] is None else {"enable_thinking": options["think"]}


def _talk(
    conversation: Any, settings: Any, printer: Any, prompt: str | None, options: dict[str, Any]
) -> None:
    from ggq.runtime.chat.terminal import Chat, line_reader

    stats = options["stats"]
    if prompt is not None:
        chat = Chat(conversation, settings, printer, input, bool(stats))
        if chat.answer(conversation.continue_text if options["raw"] else conversation.say, prompt):
            raise KeyboardInterrupt
        return
    printer.note("Type a message; /help lists the commands, Ctrl-D leaves.")
    Chat(conversation, settings, printer, line_reader(), stats is not False).loop()


def _prompt(given: str | None, dialogue: bool) -> str | None:
    """Return what to answer: the option's text, stdin if it is piped, None for a dialogue."""
    # With -p stdin is left alone: a script whose stdin never ends must not hang.
    if given is not None and given != "-":
        text = given
    elif given == "-" or not sys.stdin.isatty():
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
    elif dialogue:
        return None
    else:
        raise click.UsageError("no prompt: give one, or pipe it in")
    if not text.strip():
        raise UsageError("the prompt is empty")
    return text


def _tell(printer: Any, path: Path, model: Any, settings: Any) -> None:
    printer.note(f"model = {printable(path, 400)}")
    printer.note(f"context = {model.n_ctx}")
    for line in settings.lines():
        printer.note(printable(line, 400))

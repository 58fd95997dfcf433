"""Print a model's answer to one prompt: chat -p in short."""

from typing import Any

import click

from ggq.commands._chatting import GROUPS, chat_options, start
from ggq.commands._groups import GroupedCommand

SECTION = "Run"


@click.command(cls=GroupedCommand, groups=GROUPS)
@click.argument("model", required=False)
@click.argument("words", metavar="[PROMPT]...", nargs=-1)
@chat_options
def command(model: str | None, words: tuple[str, ...], **options: Any) -> None:
    """Print MODEL's answer to PROMPT, followed by what is piped in, and exit.

    MODEL: a GGUF file, a short name or org/repo[:Q4_K_M]. With -m MODEL all arguments are the
    prompt.
    """
    named = options.pop("model_option")
    if named is not None:
        words = words if model is None else (model, *words)
        model = named
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    if words and options["prompt"] is not None:
        raise click.UsageError("give the prompt once: as arguments or with -p")
    options["prompt"] = " ".join(words) or options["prompt"]
    start(model, options, dialogue=False)

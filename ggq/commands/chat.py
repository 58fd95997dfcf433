"""Talk with a model in the terminal, or get one answer with -p.

The dialogue itself is runtime/chat/terminal.py; options and opening are shared with ``ggq run``.
"""

from typing import Any

import click

from ggq.commands._chatting import chat_options, start

SECTION = "Run"


@click.command()
@click.argument("model", required=False)
@chat_options
def command(model: str | None, **options: Any) -> None:
    """Talk with MODEL: a GGUF file, a short name or org/repo[:Q4_K_M]; default smollm2-135m.

    With -p, or with text piped in, it prints one answer and ends.
    """
    named = options.pop("model_option")
    if named is not None and model not in (None, named):
        raise click.UsageError("give the model once: as an argument or with -m")
    start(model or named, options, dialogue=True)

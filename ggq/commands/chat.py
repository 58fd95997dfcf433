"""Talk with a model in the terminal, or get one answer with -p.

The dialogue itself is runtime/chat/terminal.py; options and opening are shared with ``ggq run``.
"""

from typing import Any

import click

from ggq.commands._chatting import GROUPS, chat_options, start
from ggq.commands._groups import GroupedCommand
from ggq.commands._models import one_model

SECTION = "Run"


@click.command(cls=GroupedCommand, groups=GROUPS)
@click.argument("model", required=False)
@chat_options
def command(model: str | None, **options: Any) -> None:
    """Talk with MODEL: a GGUF file, a short name or org/repo[:Q4_K_M]; default smollm2-135m.

    With -p, or with text piped in, it prints one answer and exits.
    """
    named = options.pop("model_option")
    start(one_model(model, named), options, dialogue=True)

"""Options for guessing how an answer goes on, for every command that writes answers."""

from __future__ import annotations

from typing import Any

import click

from ggq.commands._types import Command

DRAFT_OPTIONS = (
    click.option(
        "--draft",
        "-md",
        "--model-draft",
        "draft",
        metavar="HOW",
        help="Speculative decoding, which changes the speed and no text: ngram (the default "
        "on a CPU), mtp (the file's own prediction heads, the default where it "
        "has some), off, or the GGUF file of a smaller model.",
    ),
    click.option(
        "--draft-max",
        type=click.IntRange(1, 64),
        default=15,
        show_default=True,
        help="Most tokens that are drafted in a step.",
    ),
)


def drafting(options: dict[str, Any]) -> dict[str, Any]:
    """Return what ``ggq.load`` takes of these options."""
    return {name: options[name] for name in ("draft", "draft_max")}


def draft_options(function: Command) -> Command:
    """Decorate a command with these options."""
    for option in reversed(DRAFT_OPTIONS):
        function = option(function)
    return function

"""The option for adapters, for every command that writes answers."""

from __future__ import annotations

import click

LORA = click.option(
    "--lora", multiple=True, metavar="FILE[=SCALE]",
    help="Apply a GGUF LoRA adapter (ggq convert DIR --base MODEL); repeatable.",
)  # fmt: skip

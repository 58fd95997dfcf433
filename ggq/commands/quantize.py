"""Quantize a GGUF file: the same as convert, spelled as llama-quantize is."""

from __future__ import annotations

from typing import Any

import click

from ggq.commands import _conversion
from ggq.errors import UsageError, printable


@click.command()
@click.argument("source")
@click.argument("out", required=False)
@click.argument("kind", required=False, metavar="[TYPE]")
@_conversion.conversion_options
def command(source: str, out: str | None, kind: str | None, **given: Any) -> None:
    """Quantize SOURCE to OUT; the type as a third argument or as --type, Q4_K_M by default."""
    if kind and given["type"] and kind.upper() != given["type"].upper():
        raise UsageError(f"two types: {printable(kind)} and --type {printable(given['type'])}")
    given["type"] = given["type"] or kind
    _conversion.run(source, out, **given)

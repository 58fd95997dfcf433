"""Quantize a GGUF file: the same as convert, spelled as llama-quantize is."""

from __future__ import annotations

from typing import Any

import click

from ggq.commands import _conversion
from ggq.commands._conversion_options import GROUPS, conversion_options, is_type
from ggq.commands._groups import GroupedCommand
from ggq.errors import UsageError, printable

SECTION = "Convert"


@click.command(cls=GroupedCommand, groups=GROUPS)
@click.argument("source", metavar="IN")
@click.argument("rest", metavar="[OUT] [TYPE] [THREADS]", nargs=-1)
@conversion_options
def command(source: str, rest: tuple[str, ...], **given: Any) -> None:
    """Quantize the GGUF file IN to OUT as TYPE; default: Q4_K_M.

    The arguments are llama-quantize's: ggq quantize in.gguf out.gguf Q8_0. Without OUT (ggq
    quantize in.gguf Q8_0) the file is named after the model and the type.
    """
    out, kind, threads = _read(rest)
    for name, value in (("type", kind), ("threads", threads)):
        other = given[name]
        if value is not None and other not in (None, value) and str(other).upper() != kind:
            told = f"{printable(value)} and --{name} {printable(other)}"
            raise UsageError(f"{name} is given twice: {told}")
        given[name] = other if value is None else value
    _conversion.run(source, out, **given)


def _read(rest: tuple[str, ...]) -> tuple[str | None, str | None, int | None]:
    """Return output, type and threads of the arguments behind the input."""
    words = list(rest)
    threads = int(words.pop()) if len(words) > 1 and words[-1].isdecimal() else None
    out = None if not words or is_type(words[0]) else words.pop(0)
    kind = words.pop(0).upper() if words else None
    if out is None and words:
        raise click.UsageError(f"OUT goes before TYPE: IN {printable(words[0])} {kind}")
    if words:
        raise click.UsageError(f"unexpected argument {printable(words[0])!r}: IN [OUT] TYPE")
    return out, kind, threads

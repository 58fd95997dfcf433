"""What ``embed``, ``rerank`` and ``classify`` share: where texts come from, opening the model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ggq.commands._devices import CTX, DEVICE_OPTIONS, THREADS, weights
from ggq.commands._types import Command
from ggq.errors import UsageError, printable, reason

_OPTIONS = (
    click.option(
        "-f",
        "--file",
        "files",
        multiple=True,
        type=click.Path(path_type=Path),
        help="File of texts, one per line; repeatable.",
    ),
    click.option(
        "--truncate", is_flag=True, help="Cut texts that are too long, instead of an error."
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines."),
    CTX,
    THREADS,
    *DEVICE_OPTIONS,
)


def text_options(function: Command) -> Command:
    """Decorate a command with the options of all three."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def texts_of(words: tuple[str, ...], options: dict[str, Any]) -> list[str]:
    """Return the texts: arguments, lines of files, else lines of what is piped in; UsageError."""
    found = list(words)
    for path in options["files"]:
        try:
            found += path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{printable(path)}: {reason(error)}") from None
    if not words and not options["files"]:
        if sys.stdin.isatty():
            raise click.UsageError("no texts: give some, name files with -f, or pipe lines in")
        found = sys.stdin.buffer.read().decode("utf-8", "replace").splitlines()
    found = [text for text in found if text.strip()]
    if not found:
        raise UsageError("no texts: all lines are empty")
    return found


@contextmanager
def opened(reference: str, options: dict[str, Any]) -> Iterator[Any]:
    """Open the model of a command; its warnings go to stderr."""
    from ggq.hub import resolve_model
    from ggq.runtime.model import load

    path = resolve_model(reference)
    limits = {"n_ctx": options["ctx"], "threads": options["threads"]}
    kinds = {n: options[n] for n in ("device", "device_weights")}
    with load(weights(path, options), **limits, **kinds) as model:
        for warning in model.warnings:
            click.echo(f"warning: {printable(warning, 400)}", err=True)
        yield model

"""Models by name for commands that open one: fetched where they are not here, after asking."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ggq.errors import printable

YES = click.option("-y", "--yes", is_flag=True, help="Download a missing model without asking.")

MODEL = click.option("-m", "--model", "model_option", metavar="MODEL",
                     help="The argument MODEL, as llama.cpp's tools take it.")  # fmt: skip


def one_model(argument: str | None, option: str | None) -> str | None:
    """Return the model that is named either way; click.UsageError for two different ones."""
    if option is not None and argument not in (None, option):
        raise click.UsageError("give the model once: as an argument or with -m")
    return option if argument is None else argument


def model_path(reference: str | None, yes: bool = False) -> Path:
    """Return the model's file; a named one is fetched first, on a terminal after asking.

    Where nobody can be asked it is fetched, and told: a service has to start by itself.
    """
    from ggq import hub

    name = hub.DEFAULT_MODEL if reference is None else reference
    try:
        path = hub.resolve_model(name)
        if Path(name).is_dir():
            click.echo(f"{printable(name)}: {printable(path, 400)}", err=True)
        return path
    except hub.NotFetchedError:
        from ggq.gguf.units import format_size
        from ggq.progress import progress_when_told

        asked = sys.stdin.isatty() and sys.stderr.isatty() and not yes

        def agree(about: str, size: int) -> bool:
            click.echo(f"not on this machine yet: {about}", err=True)
            question = f"Fetch {format_size(size)}?"
            return not asked or click.confirm(question, default=True, err=True)

        def report(line: str) -> None:
            click.echo(line, err=True)

        with progress_when_told(quiet=False) as progress:
            return hub.obtain(name, agree, report, progress)


def show_available(as_json: bool) -> None:
    """Print the short names, what each stands for, and its licence."""
    from ggq import hub

    rows = [{"name": n, "model": k.about, "licence": k.licence} for n, k in hub.KNOWN.items()]
    rows += [
        {"name": name, "model": found.reference, "licence": found.licence}
        for name, found in hub.listed().items()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        click.echo(f"{row['name']:<20} {row['model']:<54} {row['licence']}")

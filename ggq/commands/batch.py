"""Answer a file of requests (OpenAI's batch lines), several at once; goes on after a kill.

Options only; the work is ``ggq.runtime.server.batch``.
"""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from ggq.errors import GGQError, UsageError

_NEEDED = ("starlette", "msgspec")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("-m", "--model", help="A GGUF file, a short name or org/repo[:Q4_K_M].")
@click.option(
    "--parallel",
    default=4,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Answers written at the same time.",
)
@click.option("-c", "--ctx", type=int, help="Context of each answer in tokens; 0: the model's.")
@click.option("-t", "--threads", type=int, help="Threads; default: the physical cores.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Longest answer of any request.")
def command(source: Path, out: Path, model: str | None, parallel: int, **options: Any) -> None:
    """Answer each line of SOURCE into OUT, in the same order.

    A line is {"custom_id": ..., "url": "/v1/chat/completions", "body": {...}}. If OUT holds
    answers already, the rest is done.
    """  # fmt: skip
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UsageError(f"ggq batch needs {', '.join(missing)}: pip install 'ggq[serve]'")
    from ggq.commands._chatting import _model_path
    from ggq.runtime.model import load
    from ggq.runtime.server.batch import run_batch
    from ggq.runtime.server.service import Service
    from ggq.runtime.server.settings import Settings
    from ggq.runtime.server.start import make_scheduler

    path = _model_path(model)
    with load(path, n_ctx=options["ctx"], threads=options["threads"]) as opened:
        scheduler = make_scheduler(opened, n_slots=parallel, max_waiting=1_000_000)
        settings = Settings(model_id=path.stem, max_tokens=options["max_tokens"])
        service = Service(opened, scheduler.start(), settings)
        try:
            failed = asyncio.run(run_batch(service, source, out, _Progress(source)))
        finally:
            scheduler.close()
    if failed:
        raise GGQError(f"{failed} lines could not be answered: see the errors in {out}")


class _Progress:
    """Lines done: a bar on a terminal, else a line now and then."""

    def __init__(self, source: Path) -> None:
        try:
            with source.open("rb") as file:
                self._total = sum(1 for line in file if line.strip())
        except OSError as error:
            raise UsageError(f"{source}: {error.strerror}") from None
        self._shown = -1

    def __call__(self, done: int) -> None:
        percent = 100 * done // max(self._total, 1)
        if sys.stderr.isatty():
            bar = "#" * (percent * 30 // 100)
            click.echo(f"\r[{bar:30}] {done}/{self._total}", err=True, nl=done == self._total)
        elif percent // 10 != self._shown:
            self._shown = percent // 10
            click.echo(f"{done}/{self._total} lines", err=True)

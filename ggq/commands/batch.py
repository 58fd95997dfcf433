"""Answer a file of requests (OpenAI's batch lines), several at once; runs can be resumed.

Options only; the work is ``ggq.runtime.server.batch``.
"""

from __future__ import annotations

import asyncio
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from ggq.commands._cache import DISK
from ggq.commands._draft import draft_options, drafting
from ggq.commands._lora import LORA
from ggq.commands._models import YES, model_path
from ggq.commands._pictures import MMPROJ
from ggq.errors import GGQError, UsageError
from ggq.extras import how_to_install
from ggq.progress import Progress, progress_bar

SECTION = "Run"

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
@DISK
@draft_options
@LORA
@MMPROJ
@YES
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    source: Path, out: Path, model: str | None, parallel: int, quiet: bool, **options: Any
) -> None:
    """Answer each line of SOURCE into OUT, in the same order.

    A line is {"custom_id": ..., "url": "/v1/chat/completions", "body": {...}}. If OUT holds
    answers already, the rest is done.
    """  # fmt: skip
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UsageError(f"ggq batch needs {', '.join(missing)}: {how_to_install('serve')}")
    from ggq.runtime.model import load
    from ggq.runtime.server.batch import run_batch
    from ggq.runtime.server.service import Service
    from ggq.runtime.server.settings import Settings
    from ggq.runtime.server.slots import make_scheduler

    total = _count(source)
    path = model_path(model, options["yes"])
    limits = {"n_ctx": options["ctx"], "threads": options["threads"]}
    limits |= {name: options[name] for name in ("cache_disk", "lora", "mmproj")}
    with load(path, **limits, **drafting(options)) as opened:
        scheduler = make_scheduler(opened, n_slots=parallel, max_waiting=1_000_000)
        settings = Settings(model_id=path.stem, max_tokens=options["max_tokens"])
        service = Service(opened, scheduler.start(), settings)
        try:
            with progress_bar(quiet) as progress:
                told = partial(_tell, progress, total)
                failed = asyncio.run(run_batch(service, source, out, told))
        finally:
            scheduler.close()
    if not quiet:
        click.echo(f"{total}/{total} lines", err=True)
    if failed:
        raise GGQError(f"{failed} lines could not be answered: see the errors in {out}")


def _tell(progress: Progress | None, total: int, done: int) -> None:
    if progress:
        progress(done, total, f"{done} of {total} lines")


def _count(source: Path) -> int:
    try:
        with source.open("rb") as file:
            if file.read(4) == b"GGUF":
                raise UsageError(f"{source} is a model: SOURCE is a file of requests, -m the model")
            file.seek(0)
            return sum(1 for line in file if line.strip())
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror}") from None

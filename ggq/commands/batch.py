"""Answer a file of requests (OpenAI's batch lines); a second run continues an interrupted one.

Options only; the work is ``ggq.runtime.server.batch``.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from ggq.commands._cache import DISK
from ggq.commands._cluster import actor_options, actors, refuse_without
from ggq.commands._devices import THREADS
from ggq.commands._draft import draft_options, drafting
from ggq.commands._lora import LORA
from ggq.commands._models import YES, model_path
from ggq.commands._pictures import MMPROJ
from ggq.errors import GGQError, UsageError
from ggq.extras import how_to_install
from ggq.progress import Progress, progress_bar

SECTION = "Run"

_NEEDED = ("starlette", "msgspec")
_LIMITS = ("cache_disk", "lora", "mmproj")  # that `load` takes by the same names


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("-m", "--model", help="A GGUF file, a short name or org/repo[:Q4_K_M].")
@click.option(
    "--parallel",
    default=4,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Answers that are generated at the same time.",
)
@click.option(
    "-c",
    "--ctx",
    type=int,
    help="Context per answer in tokens; 0: all the model was trained for; default: up to 4096.",
)
@THREADS
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    help="Most tokens of any answer, whatever a request says.",
)
@DISK
@draft_options
@LORA
@MMPROJ
@YES
@actor_options
@click.option("--send-model", is_flag=True, help="Send the model's file to the cluster's nodes.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(
    source: Path, out: Path, model: str | None, parallel: int, quiet: bool, **options: Any
) -> None:
    """Answer each line of SOURCE into OUT, in the same order.

    A line is {"custom_id": ..., "url": "/v1/chat/completions", "body": {...}}. If OUT holds
    answers already, the rest is done. The same input gives the same bytes, on one machine or, with
    --cluster, on many.
    """  # fmt: skip
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UsageError(f"ggq batch needs {', '.join(missing)}: {how_to_install('serve')}")
    if options["cluster"] is not None:
        _on_cluster(source, out, model, parallel, quiet, options)
        return
    refuse_without(options, "actors", "actor_memory", "send_model")
    from ggq.runtime.model import load
    from ggq.runtime.server.batch import run_batch
    from ggq.runtime.server.service import Service
    from ggq.runtime.server.settings import Settings
    from ggq.runtime.server.slots import make_scheduler

    total = _count(source)
    path = model_path(model, options["yes"])
    limits = {"n_ctx": options["ctx"], "threads": options["threads"]}
    limits |= {name: options[name] for name in _LIMITS}
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
    _tell_end(total, failed, out, quiet)


def _on_cluster(
    source: Path, out: Path, model: str | None, parallel: int, quiet: bool, options: dict[str, Any]
) -> None:
    """Have the nodes of a Ray cluster answer; Ctrl-C leaves what is done for the next time."""
    from ggq.cluster.connect import check_ray, connected, cpus_of_nodes

    check_ray()
    from ggq import hub
    from ggq.cluster.answering import Asked
    from ggq.cluster.batch import run_batch
    from ggq.cluster.pool import Size
    from ggq.cluster.sizing import actor_bytes, model_files
    from ggq.gguf.units import bytes_of
    from ggq.runtime.server.batch import written_at
    from ggq.runtime.server.parts import Parts, ranges

    total, name = _count(source), model or hub.DEFAULT_MODEL
    parts = Parts(source, out, ranges(source))
    if not hub.is_name(name) or Path(name).exists():
        name = str(Path(name).expanduser().absolute())  # the same path on every node
    files = model_files(model_path(model, options["yes"])) if options["send_model"] else []
    given = {"n_ctx": options["ctx"], **drafting(options)}
    given |= {k: options[k] for k in _LIMITS}
    for k in ("draft", "mmproj"):
        if given[k] and given[k] not in ("ngram", "off"):
            given[k] = os.path.abspath(given[k])
    given["lora"] = tuple(map(os.path.abspath, given["lora"]))  # =SCALE stays at the end
    memory = options["actor_memory"]
    nbytes = bytes_of(memory) if memory else actor_bytes(name, options["ctx"], parallel)
    actors(options["actors"], 1)
    with connected(options["cluster"]), progress_bar(quiet) as progress:
        nodes = cpus_of_nodes() or [1]
        threads = options["threads"] or nodes[0]
        size = Size(*actors(options["actors"], sum(max(n // threads, 1) for n in nodes)),
                    threads, nbytes)  # fmt: skip
        asked = Asked(name, parallel, written_at(source), {**given, "threads": threads},
                      options["max_tokens"])  # fmt: skip
        told = progress or (lambda done, total, name: None)
        try:
            failed = run_batch(parts, asked, size, partial(_say, quiet), told, files)
        except KeyboardInterrupt:
            done = len(parts.ranges) - len(parts.missing())
            click.echo(f"stopped with {done} of {len(parts.ranges)} parts in {parts.folder}: the "
                       "same command goes on", err=True)  # fmt: skip
            raise
    _tell_end(total, failed, out, quiet)


def _say(quiet: bool, line: str) -> None:
    if not quiet:
        click.echo(line, err=True)


def _tell_end(total: int, failed: int, out: Path, quiet: bool) -> None:
    _say(quiet, f"{total}/{total} lines")
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

"""What ``--cluster`` needs in the commands that have it: options, and what they say of actors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ggq.commands._types import Command
from ggq.errors import UsageError, printable

if TYPE_CHECKING:
    from ggq.converters.job import Events, Request, Result

__all__ = ["CLUSTER", "TASK_MEMORY", "actor_options", "actors", "converted", "refuse_without"]

CLUSTER = click.option(
    "--cluster",
    is_flag=False,
    flag_value="auto",
    metavar="[ADDRESS]",
    help="Work on a Ray cluster: the one that runs here, or the one at HOST:6379; local: start one "
    "here, to try it (docs/scale.md).",
)
TASK_MEMORY = click.option(
    "--task-memory",
    metavar="SIZE",
    help="With --cluster: memory that a task reserves, such as 2G; default: by the model.",
)
_OPTIONS = (
    click.option(
        "--actors",
        metavar="MIN[:MAX]",
        help="With --cluster: processes to start with, and at most; default: one per node.",
    ),
    click.option(
        "--actor-memory",
        metavar="SIZE",
        help="Memory of each process besides the model's file, such as 2G.",
    ),
)


def actor_options(function: Command) -> Command:
    """Decorate a command with --cluster and the options about its actors."""
    for option in reversed((CLUSTER, *_OPTIONS)):
        function = option(function)
    return function


def converted(
    request: Request, events: Events, address: str, memory: str | None, quiet: bool
) -> Result:
    """Convert on a cluster; Ctrl-C says what is done, and that the same command goes on."""
    from ggq.cluster.connect import check_ray, connected, cpus_of_nodes

    check_ray()
    from ggq.cluster.convert import OnCluster
    from ggq.converters import job
    from ggq.gguf.units import bytes_of

    if request.shard is not None:
        raise UsageError("--cluster and --shard: give one of them")
    nbytes = bytes_of(memory) if memory else None
    with connected(address):
        cpus = request.options.threads or (cpus_of_nodes() or [1])[0]
        work = OnCluster(
            request, cpus, nbytes, lambda line: None if quiet else click.echo(line, err=True)
        )
        try:
            return job.run(request, events, work)
        except KeyboardInterrupt:
            click.echo(work.stopped(), err=True)
            raise


def refuse_without(options: dict[str, Any], *names: str) -> None:
    """Refuse options that only a cluster honours; UsageError."""
    for name in names:
        if options.get(name):
            raise UsageError(f"--{name.replace('_', '-')}: only with --cluster")


def actors(text: str | None, most: int) -> tuple[int, int]:
    """Return the least and the most actors of MIN or MIN:MAX; by default 1 to ``most``."""
    if text is None:
        return 1, most
    parts = text.split(":")
    fine = len(parts) <= 2 and all(p.isdecimal() and 0 < len(p) < 7 for p in parts)
    least, largest = (int(parts[0]), int(parts[-1])) if fine else (0, 0)
    if not 1 <= least <= largest:
        raise UsageError(f"--actors {printable(text)}: expected MIN or MIN:MAX, such as 2:16")
    return least, largest

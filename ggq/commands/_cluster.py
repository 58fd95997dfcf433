"""What ``--cluster`` needs in the commands that have it: options, and what they say of actors."""

from __future__ import annotations

from typing import Any

import click

from ggq.commands._types import Command
from ggq.errors import UsageError, printable

__all__ = ["CLUSTER", "actor_options", "actors", "refuse_without"]

CLUSTER = click.option(
    "--cluster",
    is_flag=False,
    flag_value="auto",
    metavar="[ADDRESS]",
    help="Work on the machines of a Ray cluster: this machine's, or at HOST:6379; local: try it "
    "here (docs/scale.md).",
)
_OPTIONS = (
    click.option(
        "--actors",
        metavar="MIN[:MAX]",
        help="With --cluster: processes to start with, and at most; default one a node.",
    ),
    click.option(
        "--actor-memory",
        metavar="SIZE",
        help="Memory of each besides the model's file, such as 2G.",
    ),
)


def actor_options(function: Command) -> Command:
    """Decorate a command with --cluster and the options about its actors."""
    for option in reversed((CLUSTER, *_OPTIONS)):
        function = option(function)
    return function


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

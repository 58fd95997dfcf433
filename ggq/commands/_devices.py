"""The options that tell where a model computes, in how many threads and how much context.

runtime/engine/devices.py gives the first of them meaning.
"""

from pathlib import Path
from typing import Any

import click

from ggq.commands._types import Command

CTX = click.option(
    "-c",
    "--ctx",
    type=int,
    help="Context in tokens; 0: all the model was trained for; default: up to 4096.",
)
THREADS = click.option(
    "-t", "--threads", type=int, help="CPU threads; default: the physical cores."
)
DEVICE_OPTIONS = (
    click.option(
        "--device",
        default="cpu",
        show_default=True,
        metavar="NAME",
        help="cpu, mps, cuda, or auto: a Mac's GPU where torch is installed, else cpu.",
    ),
    click.option(
        "--device-weights",
        default="auto",
        show_default=True,
        metavar="KIND",
        help="Weights on a GPU: packed (as in the file), f16, or auto: f16 where it fits.",
    ),
    click.option(
        "--no-mmap", is_flag=True, help="Read the weights into memory instead of mapping the file."
    ),
)


def weights(path: Path, options: dict[str, Any]) -> Any:
    """Return what to load: the path, or with --no-mmap an open file that is in memory."""
    if not options["no_mmap"]:
        return path
    from ggq.gguf import open_gguf

    return open_gguf(path, use_mmap=False)


def device_options(function: Command) -> Command:
    """Decorate a command with these options."""
    for option in reversed(DEVICE_OPTIONS):
        function = option(function)
    return function

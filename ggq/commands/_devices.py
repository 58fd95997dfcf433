"""The options that tell where a model computes; ``ggq.runtime.devices`` gives them meaning."""

from collections.abc import Callable

import click

DEVICE_OPTIONS = (
    click.option("--device", default="cpu", show_default=True, metavar="NAME",
                 help="cpu, mps, cuda, or auto: a Mac's GPU where torch is installed, else cpu."),
    click.option("--device-weights", default="auto", show_default=True, metavar="KIND",
                 help="Weights on a GPU: packed, f16, or auto: f16 where there is memory for it."),
)  # fmt: skip


def device_options(function: Callable) -> Callable:
    """Decorate a command with these options."""
    for option in reversed(DEVICE_OPTIONS):
        function = option(function)
    return function

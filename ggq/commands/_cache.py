"""Options that choose the type of the KV cache, for every command that opens a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ggq.commands._types import Command

_TYPES = ("f16", "f32", "q8_0", "q4_0")


def cache_options(default: str = "f16") -> tuple[Callable[..., Any], ...]:
    """Return --cache-type, and --cache-type-k and --cache-type-v, which go before it."""
    kinds = click.Choice(_TYPES)
    both = f"Data type of the KV cache; default: {default}."
    return (
        click.option("--cache-type", type=kinds, default=default, help=both),
        click.option(
            "-ctk",
            "--cache-type-k",
            type=kinds,
            help="Data type of its keys; default: --cache-type.",
        ),
        click.option(
            "-ctv",
            "--cache-type-v",
            type=kinds,
            help="Data type of its values; default: --cache-type.",
        ),
    )


DISK = click.option(
    "--cache-disk",
    metavar="SIZE",
    help="Keep evaluated prompts on disk, at most so much (4G), so that none is evaluated twice.",
)


def cached(default: str = "f16") -> Callable[[Command], Command]:
    """Return a decorator that gives a command these options."""

    def decorate(function: Command) -> Command:
        for option in reversed(cache_options(default)):
            function = option(function)
        return function

    return decorate


def cache_type(options: dict[str, Any]) -> str | tuple[str, str]:
    """Return what ``ggq.load`` takes as ``cache_type``."""
    both = options["cache_type"]
    key, value = options["cache_type_k"] or both, options["cache_type_v"] or both
    return key if key == value else (key, value)

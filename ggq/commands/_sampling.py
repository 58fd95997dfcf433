"""Command-line options of the sampling parameters, made from their table."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from ggq.commands._types import Command
from ggq.errors import UsageError, printable
from ggq.runtime.sampling import SamplingParams

_SHORT = {"temperature": ("--temp", "--temperature"), "sequence": ("--samplers",)}


def sampling_options(function: Command) -> Command:
    """Add an option per sampling parameter; unset ones are None."""
    for spec in reversed(dataclasses.fields(SamplingParams)):
        flag = f"--{spec.name.replace('_', '-')}"
        names = (*_SHORT.get(spec.name, (flag,)), spec.name)
        if spec.name == "logit_bias":
            option = click.option(
                *names, multiple=True, metavar="ID=BIAS", help="Add to a token's logit; repeatable."
            )
        elif spec.name == "dry_breakers":
            option = click.option(
                "--dry-breaker", spec.name, multiple=True, help="Text that ends a DRY repetition."
            )
        else:
            text = spec.metadata["help"]
            default = "" if spec.default is None else f" [{spec.default}]"
            option = click.option(
                *names, type=_type(spec), help=text[0].upper() + text[1:] + default
            )
        function = option(function)
    return function


def sampling_flags(options: dict[str, Any]) -> dict[str, Any]:
    """Take the sampling options out of a command's ``options``; return those that were set."""
    names = [spec.name for spec in dataclasses.fields(SamplingParams)]
    flags = {name: options.pop(name) for name in names}
    flags["logit_bias"] = dict(map(_bias, flags["logit_bias"])) or None
    flags["dry_breakers"] = flags["dry_breakers"] or None
    return {name: value for name, value in flags.items() if value is not None}


def _type(spec: dataclasses.Field[Any]) -> Any:
    if spec.name == "sequence":
        return str
    return int if "int" in str(spec.type) else float


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise UsageError(f"--logit-bias {printable(text)}: expected ID=BIAS") from None

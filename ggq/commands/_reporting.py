"""A command's report: lines for people, or with ``--json`` one JSON object on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click

__all__ = ["JSON", "tell"]

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def tell(as_json: bool, facts: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Print the facts as JSON, else the lines."""
    if as_json:
        click.echo(json.dumps(facts))
        return
    for line in lines:
        click.echo(line)

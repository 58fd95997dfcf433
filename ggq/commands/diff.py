"""Compare two GGUF files: metadata, types, the error of every tensor, the chat template."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ggq.errors import printable
from ggq.gguf import open_gguf
from ggq.hub import resolve_model

SECTION = "Measure"

if TYPE_CHECKING:
    from ggq.converters.diff import Difference

LENGTH = 60  # of a value as it is shown


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(first: str, second: str, as_json: bool) -> None:
    """Show what differs between the GGUF files A and B.

    Errors are those of B's weights: relative RMS (the root of the mean squared difference over
    that of A's weights) and the largest difference. A and B: paths, or names of fetched models.
    """
    from ggq.converters.diff import diff

    with open_gguf(resolve_model(first)) as a, open_gguf(resolve_model(second)) as b:
        found = diff(a, b)
        for f in (a, b):
            f.check_unchanged()
    click.echo(json.dumps(found.as_dict()) if as_json else _text(found))


def _text(found: Difference) -> str:
    lines = [f"key {printable(k)}: {_shown(a)} -> {_shown(b)}" for k, (a, b) in found.keys.items()]
    lines += [f"only in the first: {printable(name)}" for name in found.only_first]
    lines += [f"only in the second: {printable(name)}" for name in found.only_second]
    for t in found.tensors:
        line = f"{printable(t.name):<40} {' -> '.join(dict.fromkeys(t.types)):<16}"
        if t.relative is None and t.shapes[0] != t.shapes[1]:
            line += f" shape {t.shapes[0]} -> {t.shapes[1]}"
        elif t.relative is None:
            line += " other bytes"
        else:
            line += f" relative RMS {t.relative:.3g}, max {t.largest:.3g}"
        lines.append(line)
    lines += [printable(line, 1000) for line in found.template]
    n, differing = found.n_same, len(found.tensors)
    return "\n".join([*lines, f"{n} tensors equal, {differing} differ, {len(found.keys)} keys"])


def _shown(value: Any) -> str:
    return "(none)" if value is None else printable(repr(value), LENGTH)

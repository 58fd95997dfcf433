"""Options that hold answers to a grammar or a JSON schema, named as llama-cli names them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggq.errors import UsageError, printable, reason
from ggq.extras import how_to_install

if TYPE_CHECKING:
    from ggq.runtime.grammar.asked import Asked

__all__ = ["GRAMMAR_OPTIONS", "asked"]

GRAMMAR_OPTIONS = (
    click.option(
        "--grammar", metavar="TEXT", help="Constrain answers to this grammar (GBNF or Lark)."
    ),
    click.option(
        "--grammar-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The same from a file.",
    ),
    click.option(
        "-j",
        "--json-schema",
        metavar="JSON",
        help="Constrain answers to this JSON schema; {}: any JSON object.",
    ),
    click.option(
        "-jf",
        "--json-schema-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The same from a file.",
    ),
)
_NAMES = ("grammar", "grammar_file", "json_schema", "json_schema_file")


def asked(options: dict[str, Any]) -> Asked | None:
    """Return what the options ask of answers, None for nothing; UsageError in one line."""
    names = [name for name in _NAMES if options[name] is not None]
    if not names:
        return None
    flag = f"--{names[0].replace('_', '-')}"
    if len(names) > 1:
        raise UsageError(f"{flag} and --{names[1].replace('_', '-')}: give one of them")
    if find_spec("llguidance") is None and not options["server"]:
        raise UsageError(f"{flag}: needs llguidance: {how_to_install('serve')}")
    from ggq.runtime.grammar.asked import Asked

    given = options[names[0]]
    text = str(given)
    if isinstance(given, Path):
        text = _read(flag, given)
        flag += f" {printable(given)}"
    if names[0].startswith("grammar"):
        if isinstance(given, str) and "::=" not in given and Path(given).is_file():
            raise UsageError(f"--grammar {printable(given)}: is a file; give it to --grammar-file")
        return Asked(text, origin=flag)
    return Asked(response_format=_schema(flag, text), origin=flag)


def _read(flag: str, path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{flag} {printable(path)}: {reason(error)}") from None


def _schema(flag: str, text: str) -> dict[str, Any]:
    """Return the response_format of a schema's text."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        more = ""
        if flag == "--json-schema" and Path(text).is_file():
            more = "; a file goes to --json-schema-file"
        raise UsageError(f"{flag}: is no JSON: {reason(error)}{more}") from None
    if not isinstance(found, dict):
        raise UsageError(f'{flag}: expected a JSON schema: {{"type": "object", ...}}')
    if not found:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"schema": found}}

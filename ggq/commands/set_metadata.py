"""Change, add or remove keys of a GGUF file.

Writes a new file beside the old one and renames it: a file is never half changed. It does not know
what keys mean, but refuses a change that would make a valid model invalid.
"""

import io
import json
import re
from copy import copy
from pathlib import Path
from typing import Any

import click

from ggq.errors import GGQError, UsageError, printable, reason
from ggq.gguf import GGUFFile, GGUFWriter, open_gguf, spec, validate_model
from ggq.gguf.copy import copy_tensors
from ggq.gguf.cursor import Cursor
from ggq.gguf.encode import encode_header
from ggq.gguf.header import parse_header
from ggq.gguf.writer import OWN_KEYS

SECTION = "Files"

_SETTING = re.compile(r"(?P<key>[^=:]+)(?::(?P<type>\[?\w+\]?))?=(?P<value>.*)", re.DOTALL)
_WORDS = {"true": True, "false": False}


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path), required=False)
@click.option("--set", "settings", multiple=True, metavar="KEY[:TYPE]=VALUE", help="Set a key.")
@click.option("--remove", multiple=True, metavar="KEY", help="Remove a key.")
@click.option("--force", is_flag=True, help="Overwrite OUT, or FILE where no OUT is given.")
def command(
    file: Path, out: Path | None, settings: tuple[str, ...], remove: tuple[str, ...], force: bool
) -> None:
    """Write FILE with changed keys to OUT, or over FILE with --force.

    TYPE is u8 ... f64, bool, str, or in brackets for an array given as JSON; without it a key keeps
    its type and a new one gets the simplest. VALUE @PATH reads the value from a text file.
    """
    if not settings and not remove:
        raise UsageError("nothing to do: give --set or --remove")
    # In this order FILE is closed before the new file takes its name, as Windows demands.
    with GGUFWriter(out or file, force) as writer, open_gguf(file) as f:
        if len(f.shards) > 1 and out is None:
            raise UsageError(f"{printable(file)}: is split; give OUT to get one file")
        writer.copy_metadata(f.metadata)
        for key in remove:
            if key not in f.metadata:
                raise UsageError(f"key '{printable(key)}' is not in {printable(file)}")
            writer.remove(_allowed(key))
        for setting in settings:
            key, value, type_id = _parse(f, setting)
            writer.add(key, value, type_id)
        _refuse_damage(f, writer)
        copy_tensors(f, writer)
    click.echo(f"{printable(out or file)}: {len(settings)} set, {len(remove)} removed")


def _allowed(key: str) -> str:
    if key in OWN_KEYS:
        raise UsageError(f"key '{key}' belongs to the file's layout and cannot be changed")
    return key


def _parse(f: GGUFFile, setting: str) -> tuple[str, Any, int]:
    """Return key, value and value type (of the items for an array) of KEY[:TYPE]=VALUE."""
    match = _SETTING.fullmatch(setting)
    if match is None:
        raise UsageError(f"'{printable(setting)}' is not KEY=VALUE")
    key, text = _allowed(match["key"]), match["value"]
    if text.startswith("@"):
        text = _read_text(Path(text[1:]))
    type_id, is_array = _type_for(f, key, match["type"], text)
    try:
        if is_array:
            value = json.loads(text)
            if not isinstance(value, list):
                raise ValueError
            return key, value, type_id
        return key, _scalar(text, type_id), type_id
    except (ValueError, KeyError, OverflowError):
        name = spec.VALUE_NAMES[type_id]
        wanted = f"a JSON list of {name}" if is_array else name
        raise UsageError(f"key '{printable(key)}': '{printable(text)}' is not {wanted}") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{printable(path)}: {reason(error)}") from None


def _type_for(f: GGUFFile, key: str, named: str | None, text: str) -> tuple[int, bool]:
    """Return a value's type and whether it is an array: as named, as before, or the simplest."""
    if named:
        name = named.strip("[]")
        if name not in spec.VALUE_NAMES or name == "array":
            raise UsageError(f"key '{printable(key)}': unknown type '{printable(named)}'")
        return spec.VALUE_NAMES.index(name), named != name
    if key in f.metadata:
        item_type = f.array_type(key)
        return (f.value_type(key), False) if item_type is None else (item_type, True)
    if text.lower() in _WORDS:
        return spec.BOOL, False
    if re.fullmatch(r"-?\d+", text):
        return (spec.I32 if text.startswith("-") else spec.U32), False
    return (spec.F32 if re.fullmatch(r"-?\d+\.\d*(e-?\d+)?", text) else spec.STR), False


def _scalar(text: str, type_id: int) -> Any:
    if type_id == spec.STR:
        return text
    if type_id == spec.BOOL:
        return _WORDS[text.lower()]
    return float(text) if type_id in spec.FLOAT_TYPES else int(text, 0)


def _refuse_damage(f: GGUFFile, writer: GGUFWriter) -> None:
    """Raise the error of the changed model where the file as it is has none."""
    vocab_only = not f.tensors
    try:
        validate_model(f, vocab_only)
    except GGQError:
        return
    raw = encode_header(writer.plan()[0].keys, ())
    edited = copy(f)
    edited.metadata = parse_header(Cursor(io.BytesIO(raw), len(raw), f.path)).metadata
    validate_model(edited, vocab_only)

"""Which GGUF file was made from which folder, so that a command can be given the folder.

A small file in the user's cache folder, written by ``ggq convert``. It opens no model.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from ggq.errors import UsageError, printable
from ggq.hf_hub import is_sidecar
from ggq.paths import user_cache_dir

__all__ = ["made_from", "remember"]

_MOST = 500  # folders; the oldest are forgotten


def remember(folder: str | os.PathLike[str], file: str | os.PathLike[str]) -> None:
    """Note that ``file`` was made from ``folder``; nothing where the source is no folder.

    A cache folder that cannot be written is no reason to fail.
    """
    source = Path(folder)
    if not source.is_dir():
        return
    known = _read()
    known.pop(str(source.resolve()), None)
    known[str(source.resolve())] = str(Path(file).resolve())
    with suppress(OSError):
        place = _place()
        place.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dict(list(known.items())[-_MOST:]), indent=0)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False) as partial:
            partial.write(text)
        os.replace(partial.name, place)


def made_from(folder: Path) -> Path:
    """Return the newest file made from a folder, else the one GGUF file in it; UsageError."""
    file = _read().get(str(folder.resolve()))
    if file is not None and Path(file).is_file():
        return Path(file)
    shown = printable(folder)
    there = sorted(p for p in folder.glob("*.gguf") if p.is_file() and not is_sidecar(p.name))
    first = [p for p in there if "-of-" not in p.name or "-00001-of-" in p.name]
    if len(first) == 1:
        return first[0]
    if first:
        names = ", ".join(printable(p.name) for p in first[:8])
        raise UsageError(f"{shown} is a folder of {len(first)} models: name one of {names}")
    raise UsageError(f"{shown} is a folder: name a GGUF file, or make one: ggq convert {shown}")


def _place() -> Path:
    return user_cache_dir() / "made.json"


def _read() -> dict[str, str]:
    try:
        known = json.loads(_place().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    pairs = known.items() if isinstance(known, dict) else ()
    return {k: v for k, v in pairs if isinstance(v, str)}

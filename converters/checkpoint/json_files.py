"""JSON files of a checkpoint, read with limits; what is wrong is told by the file's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ggq.errors import GIT_LFS, FormatError, pointer_error, printable, reason

__all__ = ["read_json"]

MAX_JSON = 100_000_000


def read_json(path: Path, required: bool = False, kind: type[Any] = dict) -> Any:
    """Return a JSON object or list, empty where a file not required is absent; FormatError."""
    if not path.is_file():
        if required:
            raise FormatError(f"{printable(path)}: no such file")
        return kind()
    try:
        if path.stat().st_size > MAX_JSON:
            raise FormatError(f"{printable(path)}: larger than {MAX_JSON} bytes")
        data = path.read_bytes()
        if data.startswith(GIT_LFS):
            raise pointer_error(path)
        value = json.loads(data.decode("utf-8"))
    except OSError as error:
        raise FormatError(f"{printable(path)}: cannot read: {reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{printable(path)}: is not JSON: {reason(error)}") from None
    if not isinstance(value, kind):
        what = "a JSON object" if kind is dict else "a JSON list"
        raise FormatError(f"{printable(path)}: is not {what}")
    return value

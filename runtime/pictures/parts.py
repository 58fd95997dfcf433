"""Pictures in messages as clients send them: OpenAI's, Anthropic's, and Python's own parts.

A picture is data: base64 in a data: URL, or bytes, a path or Pillow's image in Python. Other URLs
are for whoever is allowed to fetch them.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ggq.errors import UsageError, printable
from ggq.runtime.pictures.opening import MOST_BYTES, Picture, open_picture, read_picture
from ggq.runtime.pictures.rendering import IMAGE

__all__ = ["SHOWING", "Fetch", "as_data_url", "from_base64", "is_picture_part", "picture_part"]

Fetch = Callable[[str], bytes]
SHOWING = ("user", "tool")  # the roles whose messages may hold pictures
_TYPES = ("image_url", "input_image", IMAGE)
_WHERE = {"image_url": "image_url", "input_image": "image_url", IMAGE: "source"}
_UNFETCHED = (
    "URLs are not fetched here: send the picture itself, data:image/png;base64,..."
    " (ggq serve --fetch-images allows them)"
)


def is_picture_part(part: Any) -> bool:
    """Return whether a part of a message's content is of a type that holds a picture."""
    return isinstance(part, Mapping) and part.get("type") in _TYPES


def picture_part(
    part: Mapping[str, Any], where: str, fetch: Fetch | None = None, local: bool = False
) -> dict[str, Any]:
    """Return {"type": "image", "picture": Picture} of a part; UsageError says what is wrong.

    ``fetch`` gets the bytes of an http or https URL. ``local``: what only a program on this machine
    may give is taken, too: paths, bytes and Pillow's images, under "image".
    """
    if isinstance(part.get("picture"), Picture):
        return {"type": IMAGE, "picture": part["picture"]}
    if local and part["type"] == IMAGE and part.get("image") is not None:
        return {"type": IMAGE, "picture": _of_python(part["image"], where)}
    given, where = _given(part, where)
    if not isinstance(given, str) or not given:
        raise UsageError(f"{where}: expected the picture as data:image/png;base64,...")
    scheme = given[:8].partition(":")[0].lower()
    if scheme == "data":
        head, comma, data = given.partition(",")
        if not comma or not head.endswith(";base64"):
            raise UsageError(f"{where}: expected data:image/png;base64,...")
        return {"type": IMAGE, "picture": from_base64(data, where)}
    if scheme not in ("http", "https"):
        raise UsageError(f"{where}: {printable(given, 40)} is no data:image/png;base64,...")
    if fetch is None:
        raise UsageError(f"{where}: {_UNFETCHED}")
    return {"type": IMAGE, "picture": open_picture(fetch(given), where)}


def _given(part: Mapping[str, Any], where: str) -> tuple[Any, str]:
    """Return what a part says its picture is, as a URL, and where it says it."""
    name = _WHERE[part["type"]]
    found, where = part.get(name), f"{where}.{name}"
    if part["type"] != IMAGE:
        if part.get("file_id"):
            raise UsageError(f"{where}: files are not kept here: send the picture itself")
        return (found.get("url"), f"{where}.url") if isinstance(found, Mapping) else (found, where)
    if not isinstance(found, Mapping):
        return part.get("url"), where
    if found.get("type") == "base64":
        return f"data:;base64,{found.get('data') or ''}", f"{where}.data"
    return found.get("url"), f"{where}.url"


def from_base64(data: Any, where: str) -> Picture:
    """Return the picture of base64 text; UsageError where it is none."""
    if not isinstance(data, str):
        raise UsageError(f"{where}: expected base64 text")
    if len(data) > MOST_BYTES // 3 * 4 + 4:
        raise UsageError(f"{where}: has more than {MOST_BYTES >> 20} MiB")
    try:
        raw = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise UsageError(f"{where}: is no base64") from None
    return open_picture(raw, where)


def as_data_url(picture: Picture) -> str:
    """Return a picture's file as a data: URL."""
    return f"data:image/*;base64,{base64.b64encode(picture.data).decode()}"


def _of_python(given: Any, where: str) -> Picture:
    """Return the picture of what a program holds: a path, a file's bytes or Pillow's image."""
    if isinstance(given, Picture):
        return given
    if isinstance(given, (str, os.PathLike)):
        return read_picture(Path(given).expanduser())
    if isinstance(given, (bytes, bytearray, memoryview)):
        return open_picture(bytes(given), where)
    if hasattr(given, "save") and hasattr(given, "convert"):
        out = io.BytesIO()
        given.convert("RGB").save(out, "PNG")
        return open_picture(out.getvalue(), where)
    what = type(given).__name__
    raise UsageError(f"{where}: a picture is a path, bytes or Pillow's image, not {what}")

"""Messages as Python gives them, made what templates can read: texts, or an error in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ggq.errors import UsageError, printable
from ggq.runtime.pictures.parts import SHOWING, is_picture_part, picture_part

__all__ = ["read_messages", "text_of"]

_TEXT_PARTS = ("text", "input_text", "output_text")


def read_messages(
    messages: Sequence[Mapping[str, Any]], local: bool = True
) -> list[dict[str, Any]]:
    """Return the messages with parts of text joined by line ends, as the server does.

    Contents with pictures stay lists, of texts and `ggq.runtime.pictures.opening.Picture`;
    ``local``: these may be given as paths, too.

    UsageError for what no template can read, since it would write anything: no role, no content
    where nothing is called, parts that are no texts.
    """
    if not messages:
        raise UsageError("messages: is empty")
    return [_read(message, f"messages[{i}]", local) for i, message in enumerate(messages)]


def _read(message: Mapping[str, Any], where: str, local: bool) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise UsageError(f"{where}: its role is {printable(repr(role), 40)}, not a text")
    if content is None and message.get("tool_calls"):
        return dict(message)
    if content is None:
        raise UsageError(f"{where}: has no content: give a text")
    if isinstance(content, str):
        return dict(message)
    if not isinstance(content, (list, tuple)):
        what = printable(repr(content), 40)
        raise UsageError(f"{where}: its content is {what}, neither a text nor parts")
    places = [(part, f"{where}.content[{i}]") for i, part in enumerate(content)]
    if not any(is_picture_part(part) for part in content):
        return {**message, "content": "\n".join(_part(*place) for place in places)}
    if role not in SHOWING:
        raise UsageError(f"{where}: pictures are users' and tools', not {printable(role, 40)}'s")
    parts = [
        picture_part(part, place, local=local)
        if is_picture_part(part)
        else {"type": "text", "text": _part(part, place)}
        for part, place in places
    ]
    return {**message, "content": parts}


def text_of(content: Any) -> str:
    """Return what a message says: its text, or its texts with a word for each picture."""
    if not isinstance(content, list):
        return str(content)
    return "\n".join(str(part.get("text", "[picture]")) for part in content)


def _part(part: Any, where: str) -> str:
    if not isinstance(part, Mapping):
        what = printable(repr(part), 40)
        raise UsageError(
            f'{where}: expected a part such as {{"type": "text", "text": ...}}, not {what}'
        )
    kind, text = part.get("type"), part.get("text")
    if kind in _TEXT_PARTS and isinstance(text, str):
        return text
    if kind in _TEXT_PARTS or not isinstance(kind, str):
        raise UsageError(f'{where}: a part of text is {{"type": "text", "text": "..."}}')
    raise UsageError(
        f"{where}: is a part of type {printable(kind, 40)}: only text and pictures are read"
    )

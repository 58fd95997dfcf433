"""Messages as Python gives them, made what templates can read: texts, or an error in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ggq.errors import UsageError, printable

__all__ = ["read_messages"]

_TEXT_PARTS = ("text", "input_text", "output_text")


def read_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with parts of text joined by line ends, as the server does.

    UsageError for what no template can read, since it would write anything: no role, no content
    where nothing is called, parts that are no texts.
    """
    if not messages:
        raise UsageError("messages: is empty")
    return [_read(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _read(message: Mapping[str, Any], where: str) -> dict[str, Any]:
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
    texts = [_part(part, f"{where}.content[{i}]") for i, part in enumerate(content)]
    return {**message, "content": "\n".join(texts)}


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
    raise UsageError(f"{where}: is a part of type {printable(kind, 40)}: only text can be read")

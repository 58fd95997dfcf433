"""Contents of messages: texts, or parts that may be pictures, read from what clients send."""

from __future__ import annotations

from typing import Any

from ggq.errors import UsageError, printable
from ggq.runtime.pictures.gallery import Gallery
from ggq.runtime.pictures.parts import SHOWING, Fetch, is_picture_part, picture_part
from ggq.runtime.pictures.rendering import BLIND
from ggq.runtime.server.errors import APIError

__all__ = ["Content", "content_of", "joined", "opened", "part_of", "text_of"]

Content = str | list[str | dict[str, Any]]
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")


def text_of(content: Any, where: str) -> str:
    """Return a message's content as text; parts of text are joined, others are APIErrors."""
    found = content_of(content, where)
    if isinstance(found, str):
        return found
    raise APIError(400, f"{where}: pictures are users' and tools' to show", _field(where))


def content_of(content: Any, where: str) -> Content:
    """Return a content as text, or as a list of parts where it holds pictures.

    Parts of text are joined; other parts than these two are APIErrors.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise APIError(400, f"{where}: expected a text or a list of parts", _field(where))
    return joined([part_of(part, f"{where}[{i}]") for i, part in enumerate(content)])


def joined(parts: list[str | dict[str, Any]]) -> Content:
    """Return texts as one; as they are, where some parts are pictures."""
    texts = [part for part in parts if isinstance(part, str)]
    return "\n".join(texts) if len(texts) == len(parts) else parts


def part_of(part: Any, where: str) -> str | dict[str, Any]:
    """Return a part's text, or the part where it is a picture's; APIError for another kind."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise APIError(400, f"{where}: expected a part with a type", _field(where))
    if is_picture_part(part):
        return part
    kind, text = part.get("type", "text"), part.get("text", part.get("refusal"))
    if kind not in _TEXT_PARTS:
        message = f"{where}: only text and pictures are supported, not {printable(kind, 40)}"
        raise APIError(400, message, _field(where))
    if not isinstance(text, str):
        raise APIError(400, f"{where}.text: expected a text", _field(where))
    return text


def opened(
    content: list[Any], where: str, role: str, gallery: Gallery | None, fetch: Fetch | None
) -> list[dict[str, Any]]:
    """Return parts with their pictures opened; APIError where there must be none, or one is bad."""
    if gallery is None:
        raise APIError(400, f"{where}: {BLIND}", _field(where))
    if role not in SHOWING:
        raise APIError(400, f"{where}: pictures are users' and tools' to show", _field(where))
    found = []
    for i, part in enumerate(content):
        if isinstance(part, str):
            found.append({"type": "text", "text": part})
            continue
        try:
            found.append(picture_part(part, f"{where}[{i}]", fetch))
        except UsageError as error:
            raise APIError(400, str(error), _field(where)) from None
    return found


def _field(where: str) -> str:
    """Return the request's field that a place is in."""
    return where.partition("[")[0].partition(".")[0]

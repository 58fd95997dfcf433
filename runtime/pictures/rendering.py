"""Conversations with pictures, written by a model's own chat template.

Templates of models that see take messages' contents as lists of parts and write a mark for each
picture; others take texts alone. What stands in the place of a mark is the gallery's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ggq.errors import GGQError, UsageError
from ggq.runtime.pictures.gallery import Gallery, Shown
from ggq.runtime.pictures.opening import Picture
from ggq.runtime.template.template import ChatTemplate, Segment

__all__ = ["BLIND", "IMAGE", "pictures_of", "rendered"]

IMAGE = "image"  # the type of a part that holds a "picture"
BLIND = "this model takes no pictures: give its projector file, --mmproj FILE"
_SAMPLE = 48  # characters of a text that are looked for
Messages = Sequence[Mapping[str, Any]]


def pictures_of(messages: Messages) -> list[Picture]:
    """Return the pictures of messages, in their order."""
    return [part["picture"] for m in messages for part in _parts(m) if part.get("type") == IMAGE]


def rendered(
    template: ChatTemplate, messages: Messages, gallery: Gallery | None, /, **options: Any
) -> list[Segment]:
    """Return the prompt of a conversation whose contents are texts, or lists with pictures.

    Such lists hold {"type": "text", "text": ...} and {"type": "image", "picture": Picture}.
    UsageError where the model takes no pictures, or its template has no place for them.
    """
    pictures = pictures_of(messages)
    if pictures and gallery is None:
        raise UsageError(BLIND)
    shown = [gallery.show(picture) for picture in pictures] if gallery is not None else []
    marks = gallery.family.marks if gallery is not None else ()
    first: GGQError | None = None
    found: list[Segment] | None = None
    for spelled, own in _spellings(messages, bool(pictures)):
        try:
            segments = template.render(spelled, **options)
        except GGQError as error:
            first = first or error
            continue
        placed = _placed(segments, own or marks, shown, bool(own))
        if placed is None:
            continue
        found = found or placed
        if _says_all(placed, messages):
            return placed
    if found is not None:
        return found
    raise first or UsageError("the chat template has no place for pictures")


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    return list(content) if isinstance(content, list) else []


def _spellings(messages: Messages, pictures: bool) -> Iterator[tuple[Messages, tuple[str, ...]]]:
    """Yield ways to say the messages, and what stands for a picture where it is not the model's.

    Lists where there are pictures; lists for all; texts, with a mark that nobody can know.
    """
    yield [{**m, "content": _listed(m)} if _parts(m) else m for m in messages], ()
    whole = [{**m, "content": _listed(m)} if m.get("content") else m for m in messages]
    yield whole, ()
    if pictures:
        mark = f"<picture {secrets.token_hex(16)}>"
        yield [{**m, "content": _text(m, mark)} if _parts(m) else m for m in messages], (mark,)


def _listed(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = _parts(message) or [{"type": "text", "text": message["content"]}]
    return [{"type": IMAGE} if part["type"] == IMAGE else dict(part) for part in parts]


def _text(message: Mapping[str, Any], mark: str) -> str:
    parts = _parts(message)
    return "\n".join(mark if part["type"] == IMAGE else part["text"] for part in parts)


def _placed(
    segments: list[Segment], marks: tuple[str, ...], shown: list[Shown], anyones: bool
) -> list[Segment] | None:
    """Return the segments with pictures in the places of marks; None where these are not as many.

    ``anyones``: the marks stand in what users said, else in what the template wrote itself.
    """
    if not shown:
        return segments
    anywhere, found = re.compile("|".join(map(re.escape, marks))), list[Segment]()
    left = list(shown)
    for segment in segments:
        if not anyones and not segment.parse_special:
            found.append(segment)
            continue
        at = 0
        for match in anywhere.finditer(segment.text):
            if not left:
                return None
            found.append(Segment(segment.text[at : match.start()], segment.parse_special))
            found += _standing(left.pop(0))
            at = match.end()
        found.append(Segment(segment.text[at:], segment.parse_special))
    return None if left else [segment for segment in found if segment.text]


def _standing(shown: Shown) -> Iterator[Segment]:
    """Yield a picture's segments: the model's marks, and its tokens under a name."""
    name = shown.picture.digest.hex()
    for piece in shown.pieces:
        if isinstance(piece, str):
            yield Segment(piece, True)
        else:
            yield Segment(f"<{name} {piece.view} {piece.first}>", True, tuple(piece.ids.tolist()))


def _says_all(segments: list[Segment], messages: Messages) -> bool:
    """Tell whether what users said is all there: some templates leave out what is no list."""
    whole = "".join(segment.text for segment in segments)
    said = [m.get("content") for m in messages if m.get("role") == "user"]
    texts = [[c] if isinstance(c, str) else [p.get("text") for p in c or ()] for c in said]
    samples = [t.strip()[:_SAMPLE].strip() for each in texts for t in each if isinstance(t, str)]
    return all(sample in whole for sample in samples)

"""Conversations as JSON files: written whole or not at all, checked when they are read."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ggq.errors import UsageError, printable
from ggq.gguf import leftovers
from ggq.outputs import output_file
from ggq.runtime.generation.messages import read_messages
from ggq.runtime.pictures.parts import as_data_url

__all__ = ["read", "with_urls", "write"]

_FORMAT = "ggq-chat-1"
_ROLES = ("system", "user", "assistant", "tool", "developer")


def write(path: Path, messages: list[dict[str, Any]], summary: str = "") -> None:
    """Write messages, and the summary before them; only such a file is replaced."""
    path = output_file(path)
    if path.exists():
        read(path)
    data: dict[str, Any] = {"format": _FORMAT, "messages": with_urls(messages)}
    if summary:
        data["summary"] = summary
    leftovers.clear(path)
    partial = leftovers.temporary(path)
    try:
        partial.write_text(json.dumps(data, ensure_ascii=False, indent=1), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise UsageError(f"{printable(path)}: {error.strerror}") from None


def read(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Return messages and summary of a saved conversation; UsageError if it is none."""
    name = printable(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{name} is not a saved conversation: no JSON") from None
    messages = data.get("messages") if isinstance(data, dict) else None
    if not isinstance(messages, list) or data.get("format") != _FORMAT:
        raise UsageError(f"{name} is not a saved conversation")
    for i, message in enumerate(messages):
        known = isinstance(message, dict) and message.get("role") in _ROLES
        if not known or not isinstance(message.get("content"), (str, list)):
            raise UsageError(f"{name}: messages[{i}] has no known role and text")
        if not isinstance(message.get("reasoning_content", ""), str):
            raise UsageError(f"{name}: messages[{i}].reasoning_content is no text")
    summary = data.get("summary", "")
    if not isinstance(summary, str):
        raise UsageError(f"{name}: summary is no text")
    try:
        return (read_messages(messages, local=False) if messages else []), summary
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None


def with_urls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages as JSON can hold them: pictures are data: URLs in OpenAI's parts."""
    return [
        {**m, "content": [_part(part) for part in m["content"]]}
        if isinstance(m.get("content"), list)
        else m
        for m in messages
    ]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    picture = part.get("picture")
    if picture is None:
        return part
    return {"type": "image_url", "image_url": {"url": as_data_url(picture)}}

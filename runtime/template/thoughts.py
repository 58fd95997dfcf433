"""Past thoughts where a template wants them as parts of an assistant's content, not beside it.

It knows the ways in which published templates ask for that, by what their source compares with.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["placed"]

Message = dict[str, Any]
_CHUNK = re.compile(r"""\[?['".]type['"]?\]?\s*==\s*['"]thinking['"]""")  # Mistral's
_BLOCKS = re.compile(r"""['"]blocks['"]\s+in\s+message\.content""")  # Apertus'


def placed(messages: list[Message], source: str) -> list[Message]:
    """Return the messages with thoughts in their content where the template reads them there."""
    if not any(m["role"] == "assistant" and m.get("reasoning_content") for m in messages):
        return messages
    if "reasoning_content" in source:
        return messages
    if _CHUNK.search(source):
        return [_with_chunk(message) for message in messages]
    if _BLOCKS.search(source):  # which mixes no texts with blocks
        return [_as_blocks(message) for message in messages]
    return messages


def _with_chunk(message: Message) -> Message:
    """Put thoughts ahead of the content, which becomes a list."""
    thoughts, content = message.get("reasoning_content"), message.get("content")
    if message["role"] != "assistant" or not thoughts:
        return message
    said = content if isinstance(content, list) else []
    if isinstance(content, str) and content:
        said = [{"type": "text", "text": content}]
    return {**message, "content": [{"type": "thinking", "thinking": thoughts}, *said]}


def _as_blocks(message: Message) -> Message:
    """Make blocks of thoughts and text."""
    thoughts, content = message.get("reasoning_content"), message.get("content")
    if message["role"] != "assistant" or not isinstance(content or "", str):
        return message
    blocks = [{"type": "thoughts", "text": thoughts}] if thoughts else []
    blocks += [{"type": "response", "text": content}] if content else []
    return {**message, "content": {"blocks": blocks}} if blocks else message

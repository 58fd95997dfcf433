"""Room in a context that is full: the oldest turns go, or the model's summary takes their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ggq.errors import UsageError
from ggq.runtime.generation.conversation import Conversation
from ggq.runtime.generation.generation import ContextError
from ggq.runtime.generation.truncation import turns, without_oldest
from ggq.runtime.sampling import SamplingParams

__all__ = ["drop_oldest", "summarize_oldest"]

_SUMMARIZE = (
    "Summarize the conversation above for yourself, so that you can go on with it without having "
    "read it: facts, names, numbers, decisions and what is still open. At most 200 words."
)


def drop_oldest(conversation: Conversation) -> int:
    """Forget the oldest turns until half of the context is free; return how many messages.

    The system message and the last turn stay. ContextError where these alone are too much.
    """
    kept = _without_oldest(conversation)
    dropped = len(conversation.messages) - len(kept)
    conversation.messages = kept
    return dropped


def summarize_oldest(conversation: Conversation, params: SamplingParams | None = None) -> int:
    """Replace the oldest turns by the model's summary of them; return how many messages.

    A later summary takes the earlier one in. UsageError where the model writes none.
    """
    before, kept = conversation.messages, _without_oldest(conversation)
    system = [m for m in before if m["role"] == "system"]
    old = before[len(system) : len(before) - len(kept) + len(system)]
    if not old:
        return 0
    n_ctx = conversation.n_ctx
    try:
        conversation.messages = [*system, *old, {"role": "user", "content": _SUMMARIZE}]
        asked = _without_oldest(conversation, spare=4)
        if len(asked) == len(system) + 1:
            raise UsageError("the oldest messages are too long for a summary: drop them")
        conversation.messages = asked  # without the very oldest, where all are too long
        with conversation.freely():
            pieces = conversation.answer(params, n_ctx // 4 if n_ctx else None)
            text = "".join(piece.text for piece in pieces if not piece.thought).strip()
    finally:
        conversation.messages = before
    if not text:
        raise UsageError("the model wrote no summary: nothing was changed")
    conversation.summary, conversation.messages = text, kept
    return len(old)


def _without_oldest(conversation: Conversation, spare: int = 2) -> list[dict[str, Any]]:
    """Return the messages that leave one in ``spare`` parts of the context free."""
    messages, n_ctx = conversation.messages, conversation.n_ctx
    roles = [m["role"] for m in messages]
    if n_ctx is None:  # a server that does not say: half of the turns
        starts = turns(roles)
        at = starts[len(starts) // 2] if starts else 0
        return [*(m for m in messages[:at] if m["role"] == "system"), *messages[at:]]
    for limit in (n_ctx - n_ctx // spare, n_ctx - 1):  # the last turn alone may need the room
        kept = without_oldest(messages, roles, _at_most(limit, conversation))
        if kept is not None:
            return kept
    raise ContextError(conversation.count(), n_ctx)


def _at_most(limit: int, conversation: Conversation) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda messages: conversation.count(messages) <= limit

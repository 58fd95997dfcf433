"""Which turns of a conversation go where it has outgrown the context: whole ones, the oldest first.

It knows no template and no tokens: whoever asks says what fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["turns", "without_oldest"]

T = TypeVar("T")
_INSTRUCTIONS = ("system", "developer")


def turns(roles: Sequence[str]) -> list[int]:
    """Return where each turn begins: at a user's message, after the instructions at the head.

    Answers, tool calls and their results belong to the turn of the question before them.
    """
    head = _head(roles)
    starts = [i for i, role in enumerate(roles) if role == "user" and i > head]
    return [head, *starts] if head < len(roles) else []


def without_oldest(
    messages: Sequence[T], roles: Sequence[str], fits: Callable[[list[T]], bool]
) -> list[T] | None:
    """Return the messages without as few of the oldest turns as make the rest fit.

    Instructions at the head and the last turn stay; None where even these do not fit.
    """
    head, starts = _head(roles), turns(roles)

    def rest(n: int) -> list[T]:
        return [*messages[:head], *messages[starts[n] :]]

    if not starts or not fits(rest(len(starts) - 1)):
        return None
    low, high = 0, len(starts) - 1  # the answer is between: high fits
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(rest(middle)) else (middle + 1, high)
    return rest(high)


def _head(roles: Sequence[str]) -> int:
    return next((i for i, role in enumerate(roles) if role not in _INSTRUCTIONS), len(roles))

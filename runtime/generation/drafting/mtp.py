"""Guesses of the model's own head for further tokens (multi-token prediction, arXiv 2412.19437).

It reads the model's hidden states of the latest tokens and guesses one token after the other, each
from what it made of the one before, while it is sure. What repeats the text is left to `ngram`.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ggq.runtime.generation.drafting.base import Draft
from ggq.runtime.generation.drafting.model import likeliest
from ggq.runtime.generation.drafting.ngram import NGram

__all__ = ["Head", "HeadDrafter", "HeadSequence"]

_SURE = 0.5  # a token that is less likely than this is not guessed
_STEPS = (0.7, 0.85, 0.95)  # least chance in the head's eyes of each grade but the first
_CHANCES = (0.55, 0.7, 0.8, 0.92)
_COPIED = 5  # the least of `ngram`'s grades that is taken without asking the head
_READ = 256  # most tokens that it reads before its first guess


class HeadSequence(Protocol):
    """What the head has read of one answer."""

    @property
    def room(self) -> int:
        """How many tokens may be appended now."""

    def truncate(self, length: int) -> int:
        """Keep the first ``length`` tokens."""

    def free(self) -> None:
        """Give its place back."""


class Head(Protocol):
    """A model's head (ggq.runtime.engine.heads)."""

    def sequence(self) -> HeadSequence:
        """Return a new sequence of the head."""

    def states(self, ids: list[int]) -> tuple[int, np.ndarray] | None:
        """Return (position, states) of the latest tokens of ``ids`` but the last one."""

    def predict(
        self, sequence: Any, ids: list[int], states: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Append tokens to one of its sequences, with the states before them.

        Return the logits and the last token's state.
        """


class HeadDrafter:
    """The drafter; it guesses nothing before ``head`` is there, with the model's engine."""

    prior = (*_CHANCES, *NGram.prior)
    thinks = True

    def __init__(self) -> None:
        """Begin without a head."""
        self.head: Head | None = None

    def start(self) -> _Reader:
        """Return a guesser for a new answer."""
        return _Reader(self)

    def close(self) -> None:
        """There is nothing to give back: the engine closes its own."""


class _Reader:
    """One answer's sequence in the head."""

    def __init__(self, drafter: HeadDrafter) -> None:
        self._drafter, self._copies = drafter, NGram().start()
        self._sequence: HeadSequence | None = None
        self._first = self._next = 0  # positions: the first that was read, the first that was not

    def guess(self, ids: list[int], limit: int) -> Draft:
        """Return what the text repeats, else what the head guesses."""
        copied = self._copies.guess(ids, limit)
        if copied.grades and copied.grades[0] >= _COPIED:
            return Draft(copied.tokens, [len(_CHANCES) + grade for grade in copied.grades])
        head = self._drafter.head
        known = None if head is None else head.states(ids)
        if head is None or known is None:
            return Draft()
        sequence = self._sequence = self._sequence or head.sequence()
        start, states = known
        end = len(ids) - 1  # the position without a state
        earliest = max(start, end - _READ)
        if not earliest <= self._next < end:  # too far back, or nothing read yet
            sequence.truncate(0)
            self._first = self._next = earliest
        new = ids[self._next + 1 :]
        limit = min(limit, sequence.room - len(new))
        if limit < 1:
            return Draft()
        try:
            return self._chain(head, sequence, new, states[self._next - start :], limit)
        finally:  # what it guessed is no text yet
            self._next = self._first + sequence.truncate(end - self._first)

    def _chain(
        self, head: Head, sequence: HeadSequence, ids: list[int], states: np.ndarray, limit: int
    ) -> Draft:
        """Return up to ``limit`` guesses behind ``ids``."""
        tokens: list[int] = []
        grades: list[int] = []
        while len(tokens) < limit:
            logits, states = head.predict(sequence, ids, states)
            token, chance = likeliest(logits)
            if chance < _SURE:
                break
            tokens.append(token)
            grades.append(sum(chance >= step for step in _STEPS))
            ids = [token]
        return Draft(tokens, grades)

    def close(self) -> None:
        """Give the sequence back."""
        if self._sequence is not None:
            self._sequence.free()
            self._sequence = None

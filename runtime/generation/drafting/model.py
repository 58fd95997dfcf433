"""Guesses of a smaller model with the same tokens: what it would write itself, while it is sure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from ggq.runtime.generation.drafting.base import Draft

__all__ = ["DraftModel", "Session", "likeliest"]

_SURE = 0.6  # a token that is less likely than this is not guessed
_STEPS = (0.7, 0.8, 0.9, 0.97)  # least chance in the draft model's eyes of each grade but the first
_BEHIND = 256  # tokens that it evaluates at a time: answers beside it wait meanwhile


class Session(Protocol):
    """One sequence of the draft model."""

    @property
    def ids(self) -> list[int]:
        """The tokens that it holds."""

    @property
    def room(self) -> int:
        """How many tokens may be appended now."""

    def evaluate(self, ids: Sequence[int]) -> np.ndarray:
        """Append ``ids``; return float32 (n_vocab,) logits of the last."""

    def truncate(self, n: int) -> None:
        """Keep the first ``n`` tokens."""

    def close(self) -> None:
        """Give its place back."""


class DraftModel:
    """The drafter; ``session`` opens a sequence, one for each answer written at the same time.

    A sequence that an answer has left is taken again by the next one: it may begin alike.
    ``n_vocab``: the token ids that both models know are below; ``n_ctx``: a sequence's most tokens.
    """

    prior = (0.6, 0.7, 0.8, 0.9, 0.95)
    thinks = True

    def __init__(
        self, session: Callable[[], Session], close: Callable[[], None], n_vocab: int, n_ctx: int
    ) -> None:
        """Take what opens a sequence, what closes the model, and the model's limits."""
        self._session, self._close = session, close
        self.n_vocab, self.n_ctx = n_vocab, n_ctx
        self._free: list[Session] = []

    def start(self) -> _Reader:
        """Return a guesser for a new answer."""
        return _Reader(self)

    def take(self, ids: list[int]) -> Session:
        """Return a free sequence, of those that are there the one that begins most like ``ids``."""
        if not self._free:
            return self._session()
        best = max(self._free, key=lambda session: _common(session.ids, ids))
        self._free.remove(best)
        return best

    def give(self, session: Session) -> None:
        """Take a sequence back."""
        self._free.append(session)

    def close(self) -> None:
        """Close all sequences and the model."""
        while self._free:
            self._free.pop().close()
        self._close()


class _Reader:
    """One answer's sequence in the draft model."""

    def __init__(self, drafter: DraftModel) -> None:
        self._drafter = drafter
        self._session: Session | None = None
        self._shared = 0  # first tokens of the sequence that are the answer's, too

    def guess(self, ids: list[int], limit: int) -> Draft:
        """Return what the draft model would write; nothing while it is behind."""
        if self._session is None:
            self._session = self._drafter.take(ids)
        session = self._session
        self._shared = min(_common(session.ids, ids, self._shared), len(ids) - 1)
        if self._shared < len(session.ids):
            session.truncate(self._shared)
        rest = ids[len(session.ids) :]
        limit = min(limit, session.room - len(rest) + 1, self._drafter.n_ctx - len(ids) + 1)
        if limit < 1 or max(rest) >= self._drafter.n_vocab:
            return Draft()
        if len(rest) > _BEHIND:
            session.evaluate(rest[:_BEHIND])
            return Draft()
        tokens: list[int] = []
        grades: list[int] = []
        while len(tokens) < limit:
            token, chance = likeliest(session.evaluate(rest))
            if chance < _SURE or token >= self._drafter.n_vocab:
                break
            tokens.append(token)
            grades.append(sum(chance >= step for step in _STEPS))
            rest = [token]
        return Draft(tokens, grades)

    def close(self) -> None:
        """Leave the sequence to another answer."""
        if self._session is not None:
            self._drafter.give(self._session)
            self._session = None


def likeliest(logits: np.ndarray) -> tuple[int, float]:
    """Return the token of the highest logit and its probability."""
    token = int(np.argmax(logits))
    return token, float(1.0 / np.exp(logits - logits[token]).sum())


def _common(a: Sequence[int], b: Sequence[int], known: int = 0) -> int:
    """Return how many first tokens are the same; ``known`` of them need no look."""
    size = min(len(a), len(b))
    return next((at for at in range(known, size) if a[at] != b[at]), size)

"""One sequence of a model: tokens go in, logits come; it goes on from what it holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from ggq.arguments import checked
from ggq.errors import UsageError
from ggq.runtime.engine.backend import Part
from ggq.runtime.generation.drafting.speculation import Speculation

__all__ = ["Session"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _by_one_thread(method: _Method) -> _Method:
    """Decorate a method that changes a session: UsageError while another thread is in one."""

    @wraps(method)
    def alone(self: Session, *args: Any, **kwargs: Any) -> Any:
        if not self._in_use.acquire(blocking=False):
            raise UsageError(
                "this session is in use by another thread: give each thread its own, "
                "with model.session()"
            )
        try:
            return method(self, *args, **kwargs)
        finally:
            self._in_use.release()

    return alone  # type: ignore[return-value]


class Session:
    """One sequence of a model and its place in the cache; for one thread at a time."""

    def __init__(self, model: Any) -> None:
        """Begin with no tokens; ``model`` is a ggq.runtime.model.Model."""
        self._model = model
        self._sequence = model.engine.sequence()
        self.ids: list[int] = []
        self._closed = False
        self._in_use = threading.RLock()

    @checked
    @_by_one_thread
    def evaluate(self, ids: Sequence[int]) -> np.ndarray:
        """Append token ids; return the logits after the last one, float32 (n_vocab,).

        Broken off by Ctrl-C, the steps that were complete stay. UsageError on a closed session.
        """
        if self._closed:  # its pages belong to others now
            raise UsageError("this session is closed: begin another with model.session()")
        disk, n_prompt = self._model.disk, len(self.ids) + len(ids)
        while True:
            n = len(ids)
            if disk is not None and n > 1:
                engine = self._model.engine
                n = disk.cut(self._sequence, min(n, engine.usual_tokens), n_prompt)
                n = engine.cut(np.asarray(ids, np.int64), n)
            try:
                logits: np.ndarray = self._model.engine.evaluate(self._sequence, ids[:n])
            finally:
                self.ids.extend(int(i) for i in ids[:n])
                del self.ids[self._sequence.length :]
            if disk is not None:
                disk.keep(self._sequence, self.ids, n_prompt)
            ids = ids[n:]
            if not len(ids):
                return logits

    @_by_one_thread
    def recall(self, ids: Sequence[int]) -> None:
        """Hold the first of ``ids`` that are on disk, where these are more than it holds."""
        disk, held = self._model.disk, len(self.ids)
        if disk is not None and disk.restore(self._sequence, np.asarray(ids, np.int64)) != held:
            self.ids = [int(i) for i in ids[: self._sequence.length]]
            if (looker := self._model.engine.looker) is not None:
                looker.note(self._sequence, np.asarray(self.ids, np.int64))

    @_by_one_thread
    def attempt(self, ids: Sequence[int], guesses: int) -> np.ndarray:
        """Append an answer's tokens, of which the last ``guesses`` may be taken back.

        Returns float32 (guesses + 1, n_vocab) logits, of the last certain token first.
        """
        if self._model.disk is not None:  # what was certain until now
            self._model.disk.keep(self._sequence, self.ids)
        rows = np.zeros(len(ids), bool)
        rows[len(ids) - guesses - 1 :] = True
        part = Part(self._sequence, np.asarray(ids, np.int64), rows, guesses)
        try:
            rows_of_all: np.ndarray = self._model.engine.step([part])
            return rows_of_all
        finally:
            self.ids.extend(ids)
            del self.ids[self._sequence.length :]

    @property
    def turn(self) -> AbstractContextManager[Any]:
        """What nobody else's step comes between, nor a look at what is known of guesses."""
        turn: AbstractContextManager[Any] = self._model.engine.turn
        return turn

    @property
    def speculation(self) -> Speculation | None:
        """What guesses the next tokens of answers, None with ``draft="off"``."""
        found: Speculation | None = self._model.speculation
        return found

    @property
    def room(self) -> int:
        """How many tokens can be appended now."""
        return int(self._sequence.room)

    @checked
    @_by_one_thread
    def truncate(self, n: int) -> None:
        """Keep the first ``n`` tokens, or fewer where recurrent layers cannot go back to there."""
        if n < 0:
            raise UsageError(f"truncate({n}): a number of tokens is at least 0")
        del self.ids[self._sequence.truncate(n) :]

    @property
    def n_ctx(self) -> int:
        """Return the positions that the cache has room for."""
        return int(self._model.n_ctx)

    @_by_one_thread
    def close(self) -> None:
        """Give the cache's pages back; the session is of no more use."""
        self._closed = True
        self._sequence.free()
        self.ids.clear()

"""Places in a context that several threads share: who needs many waits until others leave some.

It counts the pages that answers may come to need, whichever these are in the cache.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ggq.runtime.cache.layout import PAGE

__all__ = ["Places"]

_PATIENCE = 5.0  # seconds without any work until who waits goes on anyway


class Places:
    """``n_pages`` in all; ``idle()``: for how many seconds no work has been done.

    Answers of one thread never wait for each other: the earlier one cannot go on meanwhile. Those
    of other threads may have been left half read for good. So whoever sees no work done for a
    while goes on, and is told by the cache if that is full indeed.
    """

    def __init__(self, n_pages: int, idle: Callable[[], float]) -> None:
        self._left, self._most, self._idle = n_pages, n_pages, idle
        self._users: list[int] = []  # threads
        self._change = threading.Condition()

    @contextmanager
    def of(self, n_positions: int) -> Iterator[None]:
        """Hold room for so many tokens, all at most, in the ``with`` block; wait for it before."""
        needed, me = min(-(-n_positions // PAGE), self._most), threading.get_ident()
        with self._change:
            while needed > self._left and any(user != me for user in self._users):
                if not self._change.wait(_PATIENCE) and self._idle() > _PATIENCE:
                    break
            self._left -= needed
            self._users.append(me)
        try:
            yield
        finally:
            with self._change:
                self._left += needed
                self._users.remove(me)
                self._change.notify_all()

"""Work that is done between two steps of the engine, once the cache has room for it.

It knows no answers; whoever owns it says when there is room, and locks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ggq.runtime.batching.refusals import ClosedError

__all__ = ["Jobs"]


class Jobs:
    """Functions to be called in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[], Any], int, Future[Any]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, job: Callable[[], Any], n_positions: int) -> Future[Any]:
        """Queue a function that takes ``n_positions`` of the cache; the future has its result."""
        future: Future[Any] = Future()
        self._waiting.append((job, n_positions, future))
        return future

    def run(self, has_room: Callable[[int], bool]) -> None:
        """Call all up to the first that ``has_room`` does not let in."""
        while self._waiting:
            job, n_positions, future = self._waiting[0]
            if not has_room(n_positions):
                return
            self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(job())
            except Exception as error:
                future.set_exception(error)

    def refuse(self) -> None:
        """Have all that are left fail with ClosedError."""
        for _, _, future in self._waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(ClosedError())

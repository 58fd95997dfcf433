"""Pictures that prompts wait for: looked at on a thread of their own, while answers flow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ggq.runtime.batching.requests import Task
from ggq.runtime.pictures.gallery import Block, Gallery

__all__ = ["Looks"]

_REST = 0.1  # seconds between two looks at who has gone away, where all wait for pictures


class Looks:
    """Has a gallery look at what is needed next; ``news`` is told when a picture is done."""

    def __init__(self, gallery: Gallery | None, news: threading.Condition) -> None:
        """Take the model's pictures, None where it takes none."""
        self._gallery, self._news = gallery, news
        self._pool = ThreadPoolExecutor(1, "ggq-eyes")
        self._failed: dict[int, Exception] = {}  # by a block's first number
        self._busy: set[int] = set()

    def of(self, ids: np.ndarray) -> list[Block]:
        """Return the pictures of a prompt; UsageError where one is gone."""
        return [] if self._gallery is None else self._gallery.within(ids)

    def seen(self, task: Task, failed: Callable[[Task, Exception], None]) -> bool:
        """Return whether the pictures of what a prompt lacks have been looked at.

        Where one has not, that is begun; ``failed`` is told what went wrong with it.
        """
        try:
            return not self._waits(task.prompt[task.length :])
        except Exception as error:
            failed(task, error)
            return False

    def _waits(self, ids: np.ndarray) -> bool:
        waits = False
        for block in self.of(ids):
            key = int(block.ids[0])
            if key in self._failed:
                raise self._failed.pop(key)
            if self._gallery is not None and not self._gallery.is_seen(block):
                waits = True
                if key not in self._busy:
                    self._busy.add(key)
                    self._pool.submit(self._look, key, block)
        return waits

    def _look(self, key: int, block: Block) -> None:
        try:
            if self._gallery is not None:
                self._gallery.rows(block)
        except Exception as error:
            self._failed[key] = error
        finally:
            with self._news:
                self._busy.discard(key)
                self._news.notify_all()

    def rest(self) -> None:
        """Wait for a picture, where there is nothing else to do."""
        with self._news:
            if self._busy:
                self._news.wait(_REST)

    def close(self) -> None:
        """End the thread, after what it is at."""
        self._pool.shutdown(cancel_futures=True)

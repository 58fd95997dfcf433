"""Finished sequences kept for prompts that begin alike; a queue that is fair between clients.

The least recently used sequence gives its pages back first. It knows neither engine nor text.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import numpy as np

from ggq.runtime.cache.kvcache import KVCache, Sequence
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.generation.generation import common_prefix

__all__ = ["FairQueue", "PrefixStore"]


class PrefixStore:
    """Sequences by the token ids they hold, the most recently used last."""

    def __init__(self, cache: KVCache, limit: int = 256):
        self._cache, self._limit = cache, limit
        self._kept: list[tuple[np.ndarray, Sequence]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def _common(self, ids: np.ndarray, mix: tuple[float, ...]) -> list[int]:
        """Return the length of each sequence's common prefix with ``ids`` in a mix of adapters."""
        kept = self._kept
        return [common_prefix(ids, known) if s.mix == mix else 0 for known, s in kept]

    def shared(self, ids: np.ndarray, mix: tuple[float, ...] = ()) -> int:
        """Return the length of the longest common prefix with ``ids``, reachable or not."""
        return max(self._common(ids, mix), default=0)

    def best(self, ids: np.ndarray, mix: tuple[float, ...] = ()) -> tuple[int, Sequence | None]:
        """Return (length, sequence) of the longest common prefix that can be forked, or (0, None).

        Windowed and recurrent layers cannot go back to every length.
        """
        common = self._common(ids, mix)
        lengths = [kept.reachable(n) for n, (_, kept) in zip(common, self._kept, strict=True)]
        if not lengths or not max(lengths):
            return 0, None
        at = max(range(len(lengths)), key=lambda i: (lengths[i], i))
        entry = self._kept.pop(at)
        self._kept.append(entry)
        return lengths[at], entry[1]

    def keep(self, ids: np.ndarray, sequence: Sequence) -> None:
        """Take over a sequence; those that it begins with are given up."""
        common = self._common(ids, sequence.mix)
        if len(ids) in (0, *common):
            sequence.free()
            return
        inside = [n == len(kept) for n, (kept, _) in zip(common, self._kept, strict=True)]
        for (_, old), gone in zip(self._kept, inside, strict=True):
            if gone:
                old.free()
        self._kept = [e for e, gone in zip(self._kept, inside, strict=True) if not gone]
        self._kept.append((ids, sequence))
        while len(self._kept) > self._limit:
            self._drop_oldest()

    def make_room(self, n_pages: int) -> bool:
        """Give up sequences until ``n_pages`` pages are free; return whether they are."""
        while self._kept and self._cache.free_positions < n_pages * PAGE:
            self._drop_oldest()
        return self._cache.free_positions >= n_pages * PAGE

    def clear(self) -> None:
        """Give up everything."""
        while self._kept:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._kept.pop(0)[1].free()


class FairQueue:
    """First come, first served within a client; clients take turns."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[Any]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def push(self, client: str, item: Any) -> None:
        """Append an item to its client's line."""
        self._queues.setdefault(client, deque()).append(item)

    def pop(self) -> Any:
        """Return the next item of the client whose turn it is."""
        client, line = next(iter(self._queues.items()))
        item = line.popleft()
        if line:
            self._queues.move_to_end(client)
        else:
            del self._queues[client]
        return item

    def remove(self, keep: Any) -> list[Any]:
        """Take out and return the items for which ``keep(item)`` is false."""
        gone = [item for line in self._queues.values() for item in line if not keep(item)]
        if gone:
            kept = {c: deque(filter(keep, line)) for c, line in self._queues.items()}
            self._queues = OrderedDict((c, line) for c, line in kept.items() if line)
        return gone

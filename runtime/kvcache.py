"""Keys and values of past tokens in pages; sequences own pages and may share them.

Allocated once. A page holds `PAGE` consecutive positions of one sequence in every layer: keys as
[head][column][position], so that a vector lane is a position, values as [head][position][column].
It knows no kernel.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows

import numpy as np

from ggq.errors import UsageError

__all__ = ["CACHE_TYPES", "PAGE", "KVCache", "Sequence", "cache_bytes"]

PAGE = 64
CACHE_TYPES = {"f16": np.float16, "f32": np.float32}

Shape = tuple[int, int, int]  # key-value heads, key columns, value columns of a layer


def cache_bytes(layers: Rows[Shape], n_ctx: int, kind: str = "f16") -> int:
    """Return the bytes that a cache of ``n_ctx`` positions takes."""
    pages = -(-n_ctx // PAGE)
    item = np.dtype(CACHE_TYPES[kind]).itemsize
    return sum(pages * PAGE * n_kv * (k + v) * item for n_kv, k, v in layers)


class KVCache:
    """Pages for all layers; ``n_ctx`` positions in all, shared by any number of sequences."""

    def __init__(self, layers: Rows[Shape], n_ctx: int, kind: str = "f16"):
        if kind not in CACHE_TYPES:
            raise UsageError(f"cache type {kind}: one of {', '.join(CACHE_TYPES)}")
        self.kind, self.n_ctx = kind, n_ctx
        self.n_pages = -(-n_ctx // PAGE)
        dtype = CACHE_TYPES[kind]
        # zeros: the system gives pages when they are first written
        self.keys = [np.zeros((self.n_pages, h, k, PAGE), dtype) for h, k, _ in layers]
        self.values = [np.zeros((self.n_pages, h, PAGE, v), dtype) for h, _, v in layers]
        self._users = np.zeros(self.n_pages, np.int64)
        self._free = list(range(self.n_pages))[::-1]

    @property
    def nbytes(self) -> int:
        """Return the bytes of all pages of all layers, used or not."""
        return sum(a.nbytes for a in (*self.keys, *self.values))

    @property
    def free_positions(self) -> int:
        """Positions in pages that no sequence uses."""
        return len(self._free) * PAGE

    def take(self) -> int:
        """Return a free page's number; UsageError when the context is full."""
        if not self._free:
            raise UsageError(f"the context of {self.n_ctx} tokens is full")
        page = self._free.pop()
        self._users[page] = 1
        return page

    def share(self, page: int) -> int:
        """Register one more user of a page."""
        self._users[page] += 1
        return page

    def release(self, page: int) -> None:
        """Give up one use of a page."""
        self._users[page] -= 1
        if not self._users[page]:
            self._free.append(page)

    def is_shared(self, page: int) -> bool:
        """Return whether more than one sequence uses a page."""
        return bool(self._users[page] > 1)

    def copy(self, page: int) -> int:
        """Return a new page with the same content."""
        new = self.take()
        for array in (*self.keys, *self.values):
            array[new] = array[page]
        return new


class Sequence:
    """One sequence's positions: ``length`` tokens in the pages of ``table``."""

    def __init__(self, cache: KVCache):
        self.cache = cache
        self.table = np.zeros(cache.n_pages, np.int64)
        self.length = 0
        self._n_pages = 0

    def reserve(self, n_tokens: int) -> None:
        """Make the next ``n_tokens`` positions writable; UsageError if they do not fit."""
        end = self.length + n_tokens
        if end > self.cache.n_ctx:
            raise UsageError(f"{end} tokens do not fit in the context of {self.cache.n_ctx}")
        if self.length % PAGE:
            last = self.length // PAGE
            page = int(self.table[last])
            if self.cache.is_shared(page):  # copy on write
                self.table[last] = self.cache.copy(page)
                self.cache.release(page)
        while self._n_pages * PAGE < end:
            self.table[self._n_pages] = self.cache.take()
            self._n_pages += 1

    def advance(self, n_tokens: int) -> None:
        """Count positions as evaluated."""
        self.length += n_tokens

    def truncate(self, length: int) -> None:
        """Forget all positions from ``length`` on."""
        self.length = min(length, self.length)
        keep = -(-self.length // PAGE)
        while self._n_pages > keep:
            self._n_pages -= 1
            self.cache.release(int(self.table[self._n_pages]))

    def fork(self, length: int | None = None) -> Sequence:
        """Return a new sequence that shares the pages of the first ``length`` positions."""
        other = Sequence(self.cache)
        other.length = self.length if length is None else min(length, self.length)
        other._n_pages = -(-other.length // PAGE)
        for i in range(other._n_pages):
            other.table[i] = self.cache.share(int(self.table[i]))
        return other

    def free(self) -> None:
        """Release everything."""
        self.truncate(0)

    @property
    def table_address(self) -> int:
        """Return the address of the page table (int64 page numbers), for kernels."""
        return self.table.ctypes.data

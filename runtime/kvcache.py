"""Keys and values of past tokens in pages; sequences own pages and may share them.

Allocated once. A page holds `PAGE` consecutive positions of one sequence in every layer: keys as
[head][column][position], so that a vector lane is a position, values as [head][position][column].
Of q8_0 it knows the size alone (kernels/cached.py). It knows no kernel.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows

import numpy as np

from ggq.errors import UsageError

__all__ = ["CACHE_TYPES", "PAGE", "KVCache", "Sequence", "cache_bytes"]

PAGE = 64
CHECKPOINTS = 4
CACHE_TYPES = {"f16": np.float16, "f32": np.float32, "q8_0": np.uint8}

Shape = tuple[int, int, int]  # key-value heads, key columns, value columns of a layer


def _columns(kind: str, n: int) -> int:
    """Return the elements that ``n`` columns take: q8_0 holds 34 bytes per 32."""
    if kind != "q8_0":
        return n
    if n % 32:
        raise UsageError(f"cache type {kind}: heads of {n} columns, no multiple of 32")
    return n * 34 // 32


def cache_bytes(layers: Rows[Shape], n_ctx: int, kind: str = "f16") -> int:
    """Return the bytes that a cache of ``n_ctx`` positions takes."""
    pages = -(-n_ctx // PAGE)
    item = np.dtype(CACHE_TYPES[kind]).itemsize
    columns = sum(n_kv * (_columns(kind, k) + _columns(kind, v)) for n_kv, k, v in layers)
    return pages * PAGE * item * columns


class KVCache:
    """Pages for all layers; ``n_ctx`` positions in all, shared by any number of sequences."""

    def __init__(
        self,
        layers: Rows[Shape],
        n_ctx: int,
        kind: str = "f16",
        states: Rows[tuple[int, int]] = (),
    ):
        if kind not in CACHE_TYPES:
            raise UsageError(f"cache type {kind}: one of {', '.join(CACHE_TYPES)}")
        self.kind, self.n_ctx = kind, n_ctx
        self.n_pages = -(-n_ctx // PAGE)
        dtype = CACHE_TYPES[kind]

        def pages(heads: int, width: int) -> np.ndarray:
            # zeros: the system gives pages when they are first written
            return np.zeros((self.n_pages, heads, PAGE * _columns(kind, width)), dtype)

        self.keys = [pages(h, k) for h, k, _ in layers]
        self.values = [pages(h, v) for h, _, v in layers]
        ends = np.cumsum([0, *(n for pair in states for n in pair)]).tolist()
        self.state_floats = ends[-1]
        # per layer, of both its states: bytes from a sequence's start, and what plans know it by
        self.state_offsets = [(4 * a, 4 * b) for a, b in zip(ends[::2], ends[1::2], strict=False)]
        self.state_names = [(object(), object()) for _ in states]
        self._users = np.zeros(self.n_pages, np.int64)
        self._free = list(range(self.n_pages))[::-1]

    def new_state(self) -> np.ndarray:
        """Return a sequence's state of the recurrent layers before its first token."""
        return np.zeros(self.state_floats, np.float32)

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
        self._state = cache.new_state()
        self._checkpoints: list[tuple[int, np.ndarray]] = []  # (length, state), shortest first

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
        """Count positions as evaluated; a prompt's end becomes a checkpoint."""
        self.length += n_tokens
        if len(self._state) and n_tokens > 1:
            state = self.cache.new_state()
            state[:] = self._state
            self._checkpoints.append((self.length, state))
            if len(self._checkpoints) > CHECKPOINTS:
                del self._checkpoints[1]  # keep the first one and the newest

    def _reachable(self, length: int) -> int:
        """Return the greatest length up to ``length`` whose state is known."""
        if not len(self._state) or length >= self.length:
            return min(length, self.length)
        return max((at for at, _ in self._checkpoints if at <= length), default=0)

    def _state_at(self, length: int) -> np.ndarray:
        """Return the state after ``length`` positions, one of `_reachable`."""
        known = next((s for at, s in self._checkpoints if at == length), None)
        if known is None:
            known = self._state if length == self.length else self.cache.new_state()
        return known

    def recover(self) -> None:
        """Go back to where the state is known, after a step that was broken off."""
        if len(self._state):
            self.truncate(max((at for at, _ in self._checkpoints), default=0))

    def truncate(self, length: int) -> int:
        """Forget all positions from ``length`` on; return how many are left.

        With recurrent layers fewer may be left: those of the last checkpoint before.
        """
        length = self._reachable(length)
        if len(self._state):
            self._state[:] = self._state_at(length)
            self._checkpoints = [c for c in self._checkpoints if c[0] <= length]
        self.length = length
        keep = -(-self.length // PAGE)
        while self._n_pages > keep:
            self._n_pages -= 1
            self.cache.release(int(self.table[self._n_pages]))
        return self.length

    def fork(self, length: int | None = None) -> Sequence:
        """Return a new sequence that shares the pages of the first ``length`` positions."""
        other = Sequence(self.cache)
        other.length = self._reachable(self.length if length is None else length)
        other._state[:] = self._state_at(other.length)
        other._checkpoints = [c for c in self._checkpoints if c[0] <= other.length]
        other._n_pages = -(-other.length // PAGE)
        for i in range(other._n_pages):
            other.table[i] = self.cache.share(int(self.table[i]))
        return other

    def free(self) -> None:
        """Release everything."""
        self.truncate(0)

    @property
    def state(self) -> np.ndarray:
        """Return the recurrent layers' states, one after the other; steps write to it."""
        return self._state

    @property
    def state_address(self) -> int:
        """Return the address of the recurrent layers' states, for kernels."""
        return self._state.ctypes.data

    @property
    def table_address(self) -> int:
        """Return the address of the page table (int64 page numbers), for kernels."""
        return self.table.ctypes.data

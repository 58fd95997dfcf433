"""Keys and values of past tokens in pages; sequences own pages and may share them.

Allocated once. A page holds `PAGE` consecutive positions of one sequence: keys as
[head][column][position], so that a vector lane is a position, values as [head][position][column].
Layers with a window have pages of their own, given back when no later token can see them.
It knows no kernel.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence as Rows
from typing import Any

import numpy as np

from ggq.errors import UsageError
from ggq.models.layers.base import Memory
from ggq.runtime.cache.kinds import CACHE_TYPES, Kind, kinds_of
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.cache.memory import free_memory, physical_memory
from ggq.runtime.cache.pictured import Pictured, kept
from ggq.runtime.cache.sizes import ENDS, cache_bytes, columns_of

__all__ = ["KVCache", "Sequence"]

CHECKPOINTS = 4


class _Pool:
    """Numbers of pages: how many sequences use each, and which nobody uses; for any thread."""

    def __init__(self, n_pages: int):
        self.users = np.zeros(n_pages, np.int64)
        self.free = list(range(n_pages))[::-1]  # the last one given back is taken first
        self._lock = threading.Lock()

    def take(self) -> int | None:
        """Return a page that was free, None where none is."""
        with self._lock:
            if not self.free:
                return None
            page = self.free.pop()
            self.users[page] = 1
            return page

    def share(self, page: int) -> int:
        with self._lock:
            self.users[page] += 1
        return page

    def release(self, page: int) -> None:
        with self._lock:
            self.users[page] -= 1
            if not self.users[page]:
                self.free.append(page)


class KVCache:
    """Pages for all layers; ``n_ctx`` positions in all, shared by any number of sequences.

    Pages and states are numpy's; a cache elsewhere makes its own in `_pages` and `new_state`.
    ``layers``: what each has to keep. Pages of windowed layers never run out before the others do:
    whoever holds one holds the other layers' page of the same positions, too.
    """

    def __init__(self, layers: Rows[Memory], n_ctx: int, kind: Kind = "f16"):
        self.kinds, self.n_ctx = kinds_of(kind), n_ctx
        self.n_pages = -(-n_ctx // PAGE)
        self.window = max((layer.window or 0 for layer in layers), default=0)
        if self.window >= n_ctx:
            self.window = 0
        self.windowed = [bool(self.window and layer.window) for layer in layers]
        windows = [self.window if windowed else None for windowed in self.windowed]
        self._layers = [m._replace(window=w) for m, w in zip(layers, windows, strict=True)]

        key, value = self.kinds
        try:
            self.keys = [self._pages(i, m.head_dim, key) for i, m in enumerate(layers)]
            self.values = [self._pages(i, m.head_dim_v, value) for i, m in enumerate(layers)]
        except (MemoryError, ValueError):  # ValueError: more than addresses
            raise UsageError(self._too_large()) from None
        ends = np.cumsum([0, *(n for layer in layers for n in layer.states)]).tolist()
        self.state_floats = ends[-1]
        # per layer, of both its states: bytes from a sequence's start, and what plans know it by
        self.state_offsets = [(4 * a, 4 * b) for a, b in zip(ends[::2], ends[1::2], strict=False)]
        self.state_names = [(object(), object()) for _ in layers]
        self._pools = (_Pool(self.n_pages), _Pool(self.n_pages))  # all layers', windowed layers'

    def _pages(self, layer: int, columns: int, kind: str) -> Any:
        """Return a layer's pages of keys or values; its first axis is the page."""
        # zeros: the system gives pages when they are first written
        shape = self.n_pages, self._layers[layer].n_head_kv, PAGE * columns_of(kind, columns)
        return np.zeros(shape, CACHE_TYPES[kind])

    def _too_large(self) -> str:
        free = free_memory()
        here = "" if free is None else f", {free / 1e9:.1f} GB are free"
        return f"a context of {self.n_ctx} tokens takes {self.nbytes / 1e9:.1f} GB of memory{here}"

    def check_fits(self) -> None:
        """Raise UsageError where the pages, all written, are more than the machine has."""
        memory = physical_memory()
        if memory is None or self.nbytes <= memory:
            return
        low, high = 0, self.n_pages  # pages: these fit, those do not
        while high - low > 1:
            middle = (low + high) // 2
            fits = cache_bytes(self._layers, middle * PAGE, self.kinds) <= memory
            low, high = (middle, high) if fits else (low, middle)
        raise UsageError(
            f"a context of {self.n_ctx} tokens takes {self.nbytes / 1e9:.1f} GB of memory, this "
            f"machine has {memory / 1e9:.1f} GB: {low * PAGE} tokens fit at most"
        )

    def new_state(self) -> Any:
        """Return a sequence's state of the recurrent layers before its first token."""
        return np.zeros(self.state_floats, np.float32)

    @property
    def nbytes(self) -> int:
        """Return the bytes of one sequence's pages at most, used or not."""
        return cache_bytes(self._layers, self.n_ctx, self.kinds)

    @property
    def free_positions(self) -> int:
        """Positions in pages that no sequence uses."""
        return len(self._pools[0].free) * PAGE

    @property
    def recent_positions(self) -> int:
        """Positions in pages of windowed layers that sequences use."""
        return (self.n_pages - len(self._pools[1].free)) * PAGE

    def take(self, recent: bool = False) -> int:
        """Return a free page's number; UsageError when the context is full.

        Here and below: ``recent`` is for pages of windowed layers.
        """
        page = self._pools[recent].take()
        if page is None:
            raise UsageError(f"the context of {self.n_ctx} tokens is full")
        return page

    def share(self, page: int, recent: bool = False) -> int:
        """Register one more user of a page."""
        return self._pools[recent].share(page)

    def release(self, page: int, recent: bool = False) -> None:
        """Give up one use of a page."""
        self._pools[recent].release(page)

    def is_shared(self, page: int, recent: bool = False) -> bool:
        """Return whether more than one sequence uses a page."""
        return bool(self._pools[recent].users[page] > 1)

    def copy(self, page: int, recent: bool = False) -> int:
        """Return a new page with the same content."""
        new = self.take(recent)
        for arrays in (self.keys, self.values):
            for array, windowed in zip(arrays, self.windowed, strict=True):
                if windowed == recent:
                    array[new] = array[page]
        return new


class Sequence:
    """One sequence's positions: ``length`` tokens in the pages of ``table``.

    Of windowed layers, ``recent`` names the pages that are held: those that the next token can
    see, one more to go back by, and those before the ends of the last prompts. ``mix``: the scales
    of the adapters that what it holds was computed with. ``pictured``: pictures among the tokens,
    where they have positions of rows and columns.
    """

    def __init__(self, cache: KVCache, mix: tuple[float, ...] = ()):
        self.cache, self.mix = cache, mix
        self.table = np.zeros(cache.n_pages, np.int64)
        self.recent = np.zeros(cache.n_pages if cache.window else 0, np.int64)
        self.length = 0
        self._n_pages = 0
        self._held = np.zeros(len(self.recent), bool)
        self._ends: list[int] = []  # lengths at which prompts ended
        self.pictured: tuple[Pictured, ...] = ()
        self._pinned = 0
        self._state = cache.new_state()
        self._checkpoints: list[tuple[int, Any]] = []  # (length, state), shortest first
        self._trial: tuple[int, Any] | None = None  # the state before guesses

    def reserve(self, n_tokens: int) -> None:
        """Make the next ``n_tokens`` positions writable; UsageError if they do not fit."""
        end = self.length + n_tokens
        if end > self.cache.n_ctx:
            raise UsageError(f"{end} tokens do not fit in the context of {self.cache.n_ctx}")
        if self.length % PAGE:
            self._copy_if_shared(self.table, self.length // PAGE, recent=False)
        while self._n_pages * PAGE < end:
            self.table[self._n_pages] = self.cache.take()
            self._n_pages += 1
        for i in range(self.length // PAGE, self._n_pages) if self.cache.window else ():
            if not self._held[i]:
                self.recent[i] = self.cache.take(recent=True)
                self._held[i] = True
            elif i * PAGE < self.length:
                self._copy_if_shared(self.recent, i, recent=True)

    @property
    def room(self) -> int:
        """How many tokens can be appended now."""
        held = self._n_pages * PAGE - self.length
        copied = held and self.cache.is_shared(int(self.table[self._n_pages - 1]))
        room = held + self.cache.free_positions - PAGE * bool(copied)
        return min(room, self.cache.n_ctx - self.length)

    def _copy_if_shared(self, table: np.ndarray, i: int, recent: bool) -> None:
        """Copy a page that others use, too, before it is written to."""
        page = int(table[i])
        if self.cache.is_shared(page, recent):
            table[i] = self.cache.copy(page, recent)
            self.cache.release(page, recent)

    def hold(self) -> None:
        """Keep what `truncate` needs to come back here: the next step's tokens may be wrong."""
        if len(self._state):
            state = self.cache.new_state() if self._trial is None else self._trial[1]
            state[:] = self._state
            self._trial = self.length, state

    def advance(self, n_tokens: int, answer: bool = False) -> None:
        """Count positions as evaluated; a prompt's end becomes a checkpoint.

        ``answer``: they are no prompt's, however many.
        """
        start, self.length = self.length, self.length + n_tokens
        prompt = n_tokens > 1 and not answer
        if len(self._state) and prompt:
            state = self.cache.new_state()
            state[:] = self._state
            self._checkpoints.append((self.length, state))
            if len(self._checkpoints) > CHECKPOINTS:
                del self._checkpoints[1]  # keep the first one and the newest
        if self.cache.window:
            if prompt:  # the next step of the same prompt moves its end
                self._ends = [*(e for e in self._ends if e != start), self.length][-ENDS:]
            if prompt or start // PAGE != self.length // PAGE:
                self._release_unseen()

    def adopt(self, length: int, recent: int, state: Any) -> None:
        """Count reserved positions up to ``length`` as evaluated: someone has filled their pages.

        Of windowed layers those before page number ``recent`` are not; ``state`` is that of the
        recurrent layers, None where there are none.
        """
        self.length = length
        for i in np.flatnonzero(self._held[:recent]).tolist():
            self.cache.release(int(self.recent[i]), recent=True)
        self._held[:recent] = False
        if state is not None:
            self._state[:] = state
            kept = self.cache.new_state()
            kept[:] = state
            self._checkpoints = [(length, kept)]
        if self.cache.window:
            self._ends = [length]

    def holds_recent(self, start: int, stop: int) -> bool:
        """Return whether the windowed layers' pages from number ``start`` to ``stop`` are there."""
        return bool(self._held[start:stop].all())

    def pin(self, length: int) -> None:
        """Keep what a fork at ``length`` needs of windowed layers, now or when it comes."""
        self._pinned = length

    def _release_unseen(self) -> None:
        """Give back the windowed layers' pages that nobody will look at."""
        window, needed = self.cache.window, np.zeros(len(self._held), bool)
        needed[max(0, self.length - window - PAGE) // PAGE :] = True
        for end in (*self._ends, self._pinned):
            needed[max(0, end + 1 - window) // PAGE : -(-end // PAGE)] = True
        for i in np.flatnonzero(self._held & ~needed).tolist():
            self.cache.release(int(self.recent[i]), recent=True)
        self._held &= needed

    def _sees(self, length: int) -> bool:
        """Return whether the pages are there that a token at position ``length`` looks at."""
        first = max(0, length + 1 - self.cache.window) // PAGE
        return bool(self._held[first : -(-length // PAGE)].all())

    def reachable(self, length: int) -> int:
        """Return the greatest length up to ``length`` that `truncate` and `fork` can go back to."""
        length = min(length, self.length)
        if len(self._state):
            known = sorted((at for at, _ in self._known if at <= length), reverse=True)
            lengths = [length] if length == self.length else [*known, 0]
            return next(at for at in lengths if self._sees(at) or not at)
        while not self._sees(length):  # then at the end of a page, if anywhere
            length = (length - 1) // PAGE * PAGE
        return length

    @property
    def _known(self) -> list[tuple[int, Any]]:
        """The lengths whose states are known, and the states."""
        return self._checkpoints + ([] if self._trial is None else [self._trial])

    def _state_at(self, length: int) -> Any:
        """Return the state after ``length`` positions, one that is `reachable`."""
        known = next((s for at, s in self._known if at == length), None)
        if known is None:
            known = self._state if length == self.length else self.cache.new_state()
        return known

    def recover(self) -> None:
        """Go back to where the state is known, after a step that was broken off."""
        if len(self._state):
            self.truncate(max((at for at, _ in self._known), default=0))

    def truncate(self, length: int) -> int:
        """Forget all positions from ``length`` on; return how many are left.

        With recurrent layers fewer may be left: those of the last checkpoint before. With windowed
        layers, too, far back: those before an earlier prompt's end, or none.
        """
        length = self.reachable(length)
        if len(self._state):
            self._state[:] = self._state_at(length)
            self._checkpoints = [c for c in self._checkpoints if c[0] <= length]
            if self._trial is not None and self._trial[0] > length:
                self._trial = None
        self.length = length
        self.pictured = kept(self.pictured, length)
        self._ends = [end for end in self._ends if end <= length]
        self._cut(-(-length // PAGE))
        return length

    def _cut(self, keep: int) -> None:
        """Release the pages from number ``keep`` on."""
        while self._n_pages > keep:
            self._n_pages -= 1
            self.cache.release(int(self.table[self._n_pages]))
        for i in (keep + np.flatnonzero(self._held[keep:])).tolist():
            self.cache.release(int(self.recent[i]), recent=True)
        self._held[keep:] = False

    def fork(self, length: int | None = None) -> Sequence:
        """Return a new sequence that shares the pages of the first ``length`` positions."""
        other = Sequence(self.cache, self.mix)
        other.length = self.reachable(self.length if length is None else length)
        other._state[:] = self._state_at(other.length)
        other._checkpoints = [c for c in self._checkpoints if c[0] <= other.length]
        other._ends = [end for end in self._ends if end <= other.length]
        other.pictured = kept(self.pictured, other.length)
        other._pinned = min(self._pinned, other.length)
        other._n_pages = -(-other.length // PAGE)
        for i in range(other._n_pages):
            other.table[i] = self.cache.share(int(self.table[i]))
        for i in np.flatnonzero(self._held[: other._n_pages]).tolist():
            other.recent[i] = self.cache.share(int(self.recent[i]), recent=True)
            other._held[i] = True
        return other

    def free(self) -> None:
        """Release everything."""
        self.truncate(0)

    @property
    def state(self) -> Any:
        """Return the recurrent layers' states, one after the other; steps write to it."""
        return self._state

    @property
    def state_address(self) -> int:
        """Return the address of the recurrent layers' states, for kernels."""
        return int(self._state.ctypes.data)

    @property
    def tables(self) -> tuple[int, int]:
        """Return the addresses of the page tables (int64 page numbers), for kernels.

        That of most layers, and that of windowed ones.
        """
        return self.table.ctypes.data, self.recent.ctypes.data

"""What sequences have evaluated, kept on disk by what it was: no prompt is evaluated twice.

Positions go in blocks. A block's name is the hash of the model and of all tokens up to its end, so
that prompts that begin alike share files, and who knows the tokens knows the names. Of windowed
layers the last blocks are read, of recurrent ones the state at the end. It knows no tokenizer.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from hashlib import blake2b
from weakref import WeakKeyDictionary

import numpy as np

from ggq.runtime.cache.folder import StateFolder
from ggq.runtime.cache.kvcache import KVCache, Sequence
from ggq.runtime.cache.layout import PAGE, STEP_TOKENS

__all__ = ["BLOCK", "DiskCache"]

BLOCK = 2 * PAGE  # positions of a file: a prompt that parts within one begins before it
_PAGES = BLOCK // PAGE
_SPARSE = 8  # blocks from one kept state of recurrent layers to the next, at most
_WAITING = 256 << 20  # bytes that may wait for the disk; more are not kept
_PATIENCE = 30.0  # seconds that `close` waits for the disk
_TRIES = 8  # times that a file may turn out to be bad
_log = logging.getLogger("ggq.cache")


class DiskCache:
    """States of one model's sequences in a folder; ``identity`` is a hash of all they depend on."""

    def __init__(self, folder: StateFolder, identity: bytes, cache: KVCache) -> None:
        """Take the folder and the cache whose pages are kept."""
        self.folder, self._identity, self._cache = folder, identity, cache
        arrays = [
            (pages, windowed)
            for side in (cache.keys, cache.values)
            for pages, windowed in zip(side, cache.windowed, strict=True)
            if pages[0].nbytes
        ]
        self._full = [pages for pages, windowed in arrays if not windowed]
        self._recent = [pages for pages, windowed in arrays if windowed]
        self._sizes = [
            _PAGES * sum(p[0].nbytes for p in kept) for kept in (self._full, self._recent)
        ]
        state = 4 * cache.state_floats
        self._apart = min(_SPARSE, max(1, -(-state // max(sum(self._sizes), 1))))
        self._done: WeakKeyDictionary[Sequence, int] = WeakKeyDictionary()  # blocks seen to
        self._wanted: WeakKeyDictionary[Sequence, int] = WeakKeyDictionary()  # length to stop at
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting, self._lock = 0, threading.Lock()
        self._writer: threading.Thread | None = None
        self._failed = False

    # -- what is there

    def reach(self, ids: np.ndarray, mix: tuple[float, ...] = ()) -> int:
        """Return how many first tokens of ``ids`` a sequence of that mix can be given from disk."""
        return self._find(self._names(ids, mix))[0] * BLOCK

    def restore(self, sequence: Sequence, ids: np.ndarray) -> int:
        """Fill a sequence with the state after the first of ``ids`` that disk has; return how many.

        Nothing happens, and its length is returned, where that is not a block more than it holds
        or than there is room for.
        """
        names, known = self._names(ids, sequence.mix), 0
        for _ in range(_TRIES):
            n, known = self._find(names)
            held = -(-sequence.length // PAGE) * PAGE
            if n * BLOCK < sequence.length + BLOCK or n * BLOCK > sequence.room + held:
                break
            if self._load(sequence, names[:n]):
                break
        if known * BLOCK > sequence.length:  # where the state was missing that time
            self._wanted[sequence] = known * BLOCK
        return sequence.length

    def _names(self, ids: np.ndarray, mix: tuple[float, ...]) -> list[str]:
        """Return the name of each whole block, without its kind."""
        names, link = [], self._identity + np.array(mix, np.float64).tobytes()
        data = np.ascontiguousarray(ids, np.int64)
        for at in range(len(data) // BLOCK):
            tokens = data[at * BLOCK : (at + 1) * BLOCK].tobytes()
            link = blake2b(link + tokens, digest_size=20).digest()
            names.append(f"{link.hex()}-{at:06}")
        return names

    def _find(self, names: list[str]) -> tuple[int, int]:
        """Return the blocks that can be restored, and those whose keys and values are there."""
        known = len(names)
        if self._full:
            known = next((i for i, n in enumerate(names) if f"{n}.full" not in self.folder), known)
        n = known
        while n and not all(name in self.folder for name in self._ends(names[:n])):
            n -= 1
        return n, known if self._full else n

    def _ends(self, names: list[str]) -> list[str]:
        """Return the files that only the end of so many blocks needs, the state's first."""
        state = [f"{names[-1]}.state"] if self._cache.state_floats else []
        first = max(0, len(names) * BLOCK + 1 - self._cache.window) // BLOCK
        return state + [f"{name}.recent" for name in names[first:] if self._recent]

    def _load(self, sequence: Sequence, names: list[str]) -> bool:
        """Read the files of so many blocks into a sequence; empty, and False, if one is bad."""
        sequence.truncate(0)
        length, cache = len(names) * BLOCK, self._cache
        state = None
        if cache.state_floats:
            state = self.folder.read(f"{names[-1]}.state", 4 * cache.state_floats)
            if state is None:
                return False
        sequence.reserve(length)
        first = max(0, length + 1 - cache.window) // BLOCK
        for i, name in enumerate(names):
            kinds = [("full", self._full, sequence.table, self._sizes[0])] if self._full else []
            if self._recent and i >= first:
                kinds.append(("recent", self._recent, sequence.recent, self._sizes[1]))
            for kind, arrays, table, size in kinds:
                data = self.folder.read(f"{name}.{kind}", size)
                if data is None:
                    sequence.truncate(0)
                    return False
                _fill(arrays, table[i * _PAGES : (i + 1) * _PAGES], data)
        sequence.adopt(length, first * _PAGES, None if state is None else state.view(np.float32))
        self._done[sequence] = len(names)
        used = [f"{name}.full" for name in names if self._full] + self._ends(names)
        self._later(lambda: self.folder.touch(reversed(used)))
        return True

    # -- what is kept

    def cut(self, sequence: Sequence, n_tokens: int, n_prompt: int) -> int:
        """Return how many of a prompt's next tokens a step should take, ``n_tokens`` at most.

        Windowed and recurrent layers can be kept where a step ends only: at the last block's end,
        where the next prompt may part from this one, and on the way.
        """
        if not self._recent and not self._cache.state_floats:
            return n_tokens
        start = sequence.length
        wanted = self._wanted.get(sequence, 0)
        ends = ((start // STEP_TOKENS + 1) * STEP_TOKENS, (n_prompt - 1) // BLOCK * BLOCK, wanted)
        return min(n_tokens, *(end - start for end in ends if end > start))

    def due(self, sequence: Sequence) -> bool:
        """Return whether `keep` may have something to do."""
        return sequence.length // BLOCK != self._done.get(sequence, 0)

    def keep(self, sequence: Sequence, ids: np.ndarray | list[int], n_prompt: int = 0) -> None:
        """Write the whole blocks of a sequence that are new; ``ids``: its tokens, at least.

        ``n_prompt``: the tokens of the prompt that it is at, if any. Returns before it is done.
        """
        n = sequence.length // BLOCK
        done = min(self._done.get(sequence, 0), n)
        if n == done:
            return
        names = self._names(np.asarray(ids[: n * BLOCK], np.int64), sequence.mix)
        self._done[sequence] = n
        for i in range(done, n):
            if not self._keep_pages(sequence, names[: i + 1]):
                self._done[sequence] = i
                return
        ends = (n_prompt - 1) // BLOCK, self._wanted.get(sequence, 0) // BLOCK
        here = n in ends or not n % self._apart
        if self._cache.state_floats and here and sequence.length == n * BLOCK:
            self._write(f"{names[-1]}.state", [sequence.state], [])

    def _keep_pages(self, sequence: Sequence, names: list[str]) -> bool:
        """Queue a block's pages; False where too much waits already."""
        pages = slice((len(names) - 1) * _PAGES, len(names) * _PAGES)
        kinds = [("full", self._full, sequence.table)] if self._full else []
        if self._recent and sequence.holds_recent(pages.start, pages.stop):
            kinds.append(("recent", self._recent, sequence.recent))
        before = [f"{name}.full" for name in names[:-1]][::-1]
        return all(
            self._write(f"{names[-1]}.{kind}", [a[p] for p in table[pages] for a in arrays], before)
            for kind, arrays, table in kinds
        )

    def _write(self, name: str, arrays: list[np.ndarray], before: list[str]) -> bool:
        """Queue a copy of arrays; ``before``: files that it is of use with."""
        if name in self.folder:
            return True
        size = sum(array.nbytes for array in arrays)
        if self._waiting + size > _WAITING:
            return False
        copies = [array.copy() for array in arrays]

        def job() -> None:
            try:
                if name not in self.folder:
                    self.folder.write(name, copies)
                self.folder.touch(before)
                self._failed = False
            finally:
                with self._lock:
                    self._waiting -= size

        with self._lock:
            self._waiting += size
        self._later(job)
        return True

    def _later(self, job: Callable[[], None]) -> None:
        with self._lock:
            if self._writer is None:
                self._writer = threading.Thread(target=self._work, name="ggq-disk", daemon=True)
                self._writer.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except OSError as error:
                if not self._failed:  # once until it works again
                    _log.warning("%s: %s: nothing is kept there", self.folder.path, error.strerror)
                self._failed = True

    def close(self) -> None:
        """Wait until all is written."""
        if self._writer is not None:
            self._jobs.put(None)
            self._writer.join(_PATIENCE)
            self._writer = None


def _fill(arrays: list[np.ndarray], pages: np.ndarray, data: np.ndarray) -> None:
    """Copy a block's bytes into the pages of all layers."""
    at = 0
    for page in pages.tolist():
        for array in arrays:
            place = array[page].reshape(-1).view(np.uint8)
            place[:] = data[at : at + len(place)]
            at += len(place)

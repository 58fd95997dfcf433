"""A recorded forward pass: a flat table of kernel calls with buffers, sorted into levels.

Recording appends rows that read and write buffers, each written once. ``finish`` gives every row a
level (one more than the highest it depends on), so that rows of one level run side by side, and
places buffers whose lives do not overlap in the same memory. It knows no operation and no thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ggq.machine_code import Function
from ggq.runtime.kernels.walk import LINE, ROW_FIELDS

__all__ = [
    "MOST_ADAPTERS",
    "ONE",
    "OUTPUTS",
    "SEEN",
    "TOKENS",
    "Buffer",
    "Plan",
    "Recorder",
    "State",
    "Work",
]

_ALIGN = 64

# Slots of the state: counts that rows multiply their items by.
# SPLITS: into how many parts attention splits a segment's past; SPLITS_OF_ALL: those of all.
# SEEN: tokens of pictures.
(
    TOKENS,
    ONE,
    OUTPUTS,
    SEGMENTS,
    OUTPUTS_DECODE,
    OUTPUTS_PREFILL,
    SPLITS,
    SPLITS_OF_ALL,
    PARTS,
    SEEN,
) = range(10)
MOST_ADAPTERS = 16  # of one model
_SWITCHES = 16  # the first of the slots that are 1 where a step needs an adapter
_STATE_WORDS = _SWITCHES + MOST_ADAPTERS


class State:
    """The counts that change from step to step, at one address that kernels know."""

    def __init__(self) -> None:
        self.words = np.zeros(_STATE_WORDS, np.int64)
        self.words[ONE] = 1
        self.multiples: dict[int, int] = {}  # slot -> how many times the tokens it counts

    def multiple(self, factor: int) -> int:
        """Return the slot that counts the step's tokens times ``factor``."""
        for slot, known in self.multiples.items():
            if known == factor:
                return slot
        slot = SEEN + 1 + len(self.multiples)
        assert slot < _SWITCHES, "a model routes to few different numbers of experts"
        self.multiples[slot] = factor
        return slot

    def switch(self, adapter: int) -> int:
        """Return the slot that is 1 where a step needs the adapter of that number, else 0."""
        return _SWITCHES + adapter

    def address(self, slot: int = 0) -> int:
        """Return the address of a slot."""
        return self.words.ctypes.data + 8 * slot


@dataclass(eq=False)
class Buffer:
    """Memory for one value: ``stride`` bytes for each of the plan's tokens."""

    stride: int
    slot: int = TOKENS
    address: int = 0
    born: int = -1
    dies: int = -1


@dataclass(frozen=True)
class Work:
    """A row's ``items`` times state[slot] items, of which a thread claims ``chunk`` at a time."""

    items: int = 1
    slot: int = TOKENS
    chunk: int = 1


@dataclass(eq=False)
class _Row:
    label: str
    kernel: Any
    args: list[int | Buffer | Function]
    work: Work
    reads: Sequence[Any]
    writes: Sequence[Any]
    level: int = 0
    first: bool = False


@dataclass
class Plan:
    """The executable form: tables of int64 whose addresses the executor takes."""

    table: np.ndarray
    counters: np.ndarray | None
    labels: list[str]
    n_levels: int
    state_address: int
    output: Buffer
    arena: np.ndarray = field(repr=False)
    tapped: Buffer | None = None
    keep: list[Any] = field(repr=False, default_factory=list)

    @property
    def n_rows(self) -> int:
        """Return the number of rows of the table."""
        return len(self.labels)

    def output_rows(self, n: int, width: int) -> np.ndarray:
        """Return a copy of the output's first rows, float32 (n, width)."""
        return self._rows(self.output, n, width)

    def tapped_rows(self, n: int, width: int) -> np.ndarray:
        """Return a copy of the first rows of what was tapped, float32 (n, width)."""
        assert self.tapped is not None
        return self._rows(self.tapped, n, width)

    def _rows(self, buffer: Buffer, n: int, width: int) -> np.ndarray:
        start = buffer.address - self.arena.ctypes.data
        rows = self.arena[start : start + n * buffer.stride].view(np.float32)
        return rows.reshape(n, buffer.stride // 4)[:, :width].copy()

    def counters_for(self, shares: int) -> int:
        """Return the address of the counters of ``shares`` threads, made on the first call."""
        if self.counters is None:
            self.counters = _aligned((self.n_rows * shares + self.n_levels) * LINE)
        return self.counters.ctypes.data


_PER_TOKEN = Work()


class Recorder:
    """Collects rows for at most ``max_tokens`` tokens a step."""

    def __init__(self, max_tokens: int, state: State):
        self.max_tokens = max_tokens
        self.state = state
        self.tapped: Buffer | None = None  # what is read after a step, beside the output
        self._rows: list[_Row] = []
        # id of a buffer or resource -> level of its last writer
        self._level_of: dict[int, int] = {}
        self._readers: dict[int, int] = {}  # -> highest level that reads it

    def buffer(self, stride: int, slot: int = TOKENS) -> Buffer:
        """Declare a buffer of ``stride`` bytes per token."""
        return Buffer(-(-stride // _ALIGN) * _ALIGN, slot)

    def row(
        self,
        label: str,
        kernel: Function,
        work: Work = _PER_TOKEN,
        *,
        reads: Sequence[Any] = (),
        writes: Sequence[Any] = (),
        first: bool = False,
        **arguments: Any,
    ) -> None:
        """Append a kernel call over ``work``: an item per token unless said otherwise.

        ``reads`` and ``writes`` name buffers or other resources (any object, such as a layer's
        cache); ``first``: threads come to it before the other rows of its level; ``arguments`` are
        the fields that the kernel declares.
        """
        args = kernel.arguments.filled(**arguments)
        level = 0
        for item in reads:
            level = max(level, self._level_of.get(id(item), -1) + 1)
        for item in writes:
            level = max(level, self._level_of.get(id(item), -1) + 1)
            level = max(level, self._readers.get(id(item), -1) + 1)
        for item in reads:
            self._readers[id(item)] = max(level, self._readers.get(id(item), -1))
        for item in writes:
            self._level_of[id(item)] = level
        row = _Row(label, kernel, args, work, tuple(reads), tuple(writes), level, first)
        self._rows.append(row)

    @property
    def kernels(self) -> list[Function]:
        """Return the kernels that the rows call, and those that kernels call by address."""
        used = [f for r in self._rows for f in (r.kernel, *r.args) if isinstance(f, Function)]
        return list(dict.fromkeys(used))

    def finish(self, output: Buffer) -> Plan:
        """Order rows by level, place buffers and build the tables."""
        rows = sorted(self._rows, key=lambda r: (r.level, not r.first))  # stable
        arena = self._place(rows, output)
        n_slots = sum(len(r.args) for r in rows)
        args = np.zeros(n_slots, np.int64)
        table = np.zeros((len(rows), ROW_FIELDS), np.int64)
        at = 0
        for i, row in enumerate(rows):
            values = [a if isinstance(a, int) else a.address for a in row.args]
            args[at : at + len(values)] = values
            address = args.ctypes.data + 8 * at
            work, kernel = row.work, row.kernel.address
            table[i] = kernel, address, work.items, work.slot, work.chunk, row.level
            at += len(values)
        n_levels = rows[-1].level + 1
        keep = [args, self.state, *{id(r.kernel): r.kernel for r in rows}.values()]
        labels = [r.label for r in rows]
        address = self.state.address()
        return Plan(table, None, labels, n_levels, address, output, arena, self.tapped, keep)

    def _most_rows(self, slot: int) -> int:
        """Return how many rows a buffer that ``slot`` counts holds at most."""
        return 1 if slot == ONE else self.max_tokens * self.state.multiples.get(slot, 1)

    def _place(self, rows: list[_Row], output: Buffer) -> np.ndarray:
        """Give buffers addresses: first fit among those alive at the same levels."""
        for row in rows:
            for b in (*row.reads, *row.writes):
                if isinstance(b, Buffer):
                    b.born = row.level if b.born < 0 else b.born
                    b.dies = max(b.dies, row.level)
        for kept in filter(None, (output, self.tapped)):
            kept.dies = rows[-1].level + 1
        seen: dict[int, Buffer] = {
            id(b): b for r in rows for b in r.writes if isinstance(b, Buffer)
        }
        placed: list[tuple[int, int, Buffer]] = []
        for b in sorted(seen.values(), key=lambda b: b.born):
            size = b.stride * self._most_rows(b.slot)
            start = 0
            for other_start, other_end, other in sorted(placed, key=lambda p: p[0]):
                if other.dies >= b.born and other.born <= b.dies:
                    if start + size <= other_start:
                        break
                    start = max(start, other_end)
            placed.append((start, start + size, b))
            b.address = start
        arena = _aligned(max((end for _, end, _ in placed), default=0) + 4096)
        for b in seen.values():
            b.address += arena.ctypes.data
        return arena


def _aligned(nbytes: int) -> np.ndarray:
    """Return zeroed bytes that begin on a cache line."""
    raw = np.zeros(nbytes + _ALIGN, np.uint8)
    offset = -raw.ctypes.data % _ALIGN
    return raw[offset : offset + nbytes]

"""The driver of a batch on a cluster: ranges out to actors, parts back, then one file.

Exactly once is `ggq.runtime.server.parts`'; Ray only says where things run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

import ggq
from ggq.cluster.answering import Answerer, Asked, Piece, send
from ggq.cluster.pool import Pool, Size
from ggq.cluster.rates import Rates
from ggq.errors import UsageError, printable
from ggq.runtime.server.batch import custom_id_of, output_line
from ggq.runtime.server.parts import Parts, Range, requests

__all__ = ["run_batch"]


def run_batch(
    parts: Parts,
    asked: Asked,
    size: Size,
    tell: Callable[[str], None],
    progress: Callable[[int, int, str], None],
    files: Iterable[Path] = (),
) -> int:
    """Answer what has no part yet, write OUT; return how many lines say an error.

    ``files``: of the model, to be sent to the nodes. Ends with GGQError or KeyboardInterrupt so
    that the same call goes on.
    """
    if parts.complete:
        parts.remove()
        return parts.failed
    missing = parts.missing()
    if missing:
        if files := list(files):
            asked = replace(asked, sent=send(files))
        work = _Batch(parts, asked, progress, tell, deque())
        work.plan(missing)
        pool = Pool(Answerer, (asked,), size, tell)
        pool.run(work)
        work.rates.tell(tell)
    return parts.merge()


@dataclass
class _Batch:
    """The items are ranges, and pieces of one line where a range is suspected."""

    parts: Parts
    asked: Asked
    progress: Callable[[int, int, str], None]
    tell: Callable[[str], None]
    waiting: deque[Range | Piece]
    facts: dict[str, Any] | None = None
    rates: Rates = field(default_factory=lambda: Rates("lines"))
    _of: dict[int, Range] = field(default_factory=dict)  # by the number of its first line
    _lines: dict[int, dict[int, bytes]] = field(default_factory=dict)  # answers, by line
    _ends: dict[int, int] = field(default_factory=dict)  # line -> its range's first
    _done: int = 0
    _total: int = 0

    def plan(self, missing: list[Range]) -> None:
        """Queue the ranges."""
        self._total = sum(one.n_lines for one in self.parts.ranges)
        self._done = self._total - sum(one.n_lines for one in missing)
        for one in missing:
            self._of[one.number] = one
            self.waiting.append(one)
        self.progress(self._done, self._total, "waiting for actors")

    def payload(self, item: Range | Piece) -> Piece:
        """Read a range when its turn comes: an input may be larger than the memory."""
        if isinstance(item, Piece):
            return item
        return Piece(item.number, tuple(requests(item.read(self.parts.source))))

    def ready(self, facts: dict[str, Any]) -> None:
        """Compare a node with the others; UsageError where it would answer differently."""
        node = facts["node"]
        if facts["ggq"] != ggq.__version__:
            raise UsageError(f"node {node} has ggq {facts['ggq']}, this is {ggq.__version__}")
        if "error" in facts:
            raise UsageError(f"node {node}: {facts['error']}")
        if self.facts is None:
            settings = {k: str(v) for k, v in sorted(self.asked.load.items()) if k != "threads"}
            settings["max_tokens"] = str(self.asked.max_tokens)
            self.parts.belong({"model": facts["model"], "content": facts["content"], **settings})
            self.facts = facts
        first = self.facts
        if facts["content"] != first["content"]:
            what = f"{printable(self.asked.model)} is another file than on {first['node']}"
            raise UsageError(f"node {node}: {what}")
        if facts["isa"] != first["isa"]:
            both = f"{first['isa']} on {first['node']}, {facts['isa']} on {node}"
            self.tell(f"the nodes' processors differ ({both}): so may last digits, and with them "
                      "words; GGQ_ISA makes them equal")  # fmt: skip

    def done(self, item: Range | Piece, answers: list[bytes], node: str) -> None:
        """Keep answers; write the part when the range has all."""
        self._take(item.number, answers)
        self.rates.add(node, len(answers))
        told = f"{self._done} of {self._total} lines, {self.rates}"
        self.progress(self._done, self._total, told)

    def suspected(self, item: Range | Piece, why: str) -> None:
        """Ask the lines one by one, and say an error for the one that ends its actor."""
        piece = self.payload(item)
        if len(piece.lines) > 1:
            self.tell(f"lines from {piece.number + 1}: {why}; they are asked one by one")
            for i, raw in reversed(list(enumerate(piece.lines, piece.number))):
                self._ends[i] = piece.number
                self.waiting.appendleft(Piece(i, (raw,)))
            return
        self.tell(f"line {piece.number + 1}: {why}; it gets an error")
        message = "the process that answered this line died, several times"
        error = {"message": message, "type": "server_error", "param": None, "code": None}
        raw = piece.lines[0]
        line = output_line(raw, piece.number, custom_id_of(raw), (500, {"error": error}))
        self._take(piece.number, [msgspec.json.encode(line)])

    def _take(self, number: int, answers: list[bytes]) -> None:
        first = self._ends.get(number, number)
        held = self._lines.setdefault(first, {})
        held.update(enumerate(answers, number))
        self._done += len(answers)
        one = self._of[first]
        if len(held) == one.n_lines:
            self.parts.put(one, [held[i] for i in sorted(held)])
            del self._lines[first]

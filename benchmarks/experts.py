"""Decoding a mixture of experts larger than the memory, experts asked for or not, in turns.

    python benchmarks/synthetic.py moe Q4_K_M moe.gguf
    python benchmarks/experts.py moe.gguf [--memory 0.5] [--tokens 12] [-r 5] [-t 2]

Prints what each way took for a token and read from disk, and the median ratio of the rounds; ends
with an error where a logit differs. A limit for this process alone takes a control group, which
not everybody may make; so the file's pages in memory are counted after each token, and 2 MiB
pieces drawn by chance are dropped until ``--memory`` of the file is left: a system that
keeps what was used last keeps more of what is needed again, for both ways. Each round
begins with nothing of the file in memory. Linux only; the file must be yours.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import platform
import statistics
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import ggq
from ggq.jit import ISA
from ggq.runtime.engine.weights import Weights

_PIECE = 2 << 20  # as large as the system's largest pages of files


class Pages:
    """A file's pages in memory: counted, and dropped."""

    def __init__(self, path: Path):
        self.size = path.stat().st_size
        self._file = path.open("rb")
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._address = np.frombuffer(self._map, np.uint8).ctypes.data
        self._random = np.random.default_rng(7)
        self.views: list[mmap.mmap] = []  # other mappings, which hold pages as well

    def resident(self) -> np.ndarray:
        """Return how many bytes of each piece are in memory."""
        flags = np.zeros(-(-self.size // mmap.PAGESIZE), np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        size = ctypes.c_size_t(self.size)
        if libc.mincore(ctypes.c_void_p(self._address), size, ctypes.c_void_p(flags.ctypes.data)):
            raise OSError(ctypes.get_errno(), "mincore")
        per_piece = _PIECE // mmap.PAGESIZE
        padded = np.zeros(-(-flags.size // per_piece) * per_piece, np.uint8)
        padded[: flags.size] = flags & 1
        return padded.reshape(-1, per_piece).sum(axis=1) * mmap.PAGESIZE

    def shrink(self, limit: int) -> None:
        """Drop pieces until at most ``limit`` bytes are in memory."""
        held = self.resident()
        for piece in self._random.permutation(np.flatnonzero(held)):
            if held.sum() <= limit:
                return
            start = int(piece) * _PIECE
            for view in self.views:
                view.madvise(mmap.MADV_DONTNEED, start, min(_PIECE, self.size - start))
            os.posix_fadvise(self._file.fileno(), start, _PIECE, os.POSIX_FADV_DONTNEED)
            held[piece] = 0


@dataclass
class Way:
    """One way of decoding: its model, and what its rounds took and read."""

    name: str
    model: ggq.Model
    seconds: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)


def read_bytes() -> int:
    """Return the bytes that this process has had read from disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def loaded(path: Path, asks: bool, threads: int) -> ggq.Model:
    """Return the model, told that its file is larger than the memory, or that it is not."""
    Weights.beyond_memory = asks  # type: ignore[assignment]
    model = ggq.load(path, n_ctx=512, threads=threads)
    with closing(model.session()) as session:
        session.evaluate([1])  # the plan is recorded now
    return model


def turn(way: Way, ids: list[int], pages: Pages, limit: int) -> list[np.ndarray]:
    """Decode ``ids`` one by one from an empty memory; return their logits."""
    pages.shrink(0)
    logits, took, before = [], 0.0, read_bytes()
    with closing(way.model.session()) as session:
        for token in ids:
            start = time.perf_counter()
            logits.append(session.evaluate([token]))
            took += time.perf_counter() - start
            pages.shrink(limit)
    way.seconds.append(took / len(ids))
    way.read.append((read_bytes() - before) / len(ids))
    return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--memory", type=float, default=0.5, help="share of the file that is kept")
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--repeats", type=int, default=5)
    given = parser.parse_args()
    pages = Pages(given.model)
    ways = [
        Way(name, loaded(given.model, asks, given.threads))
        for name, asks in (("pages when touched", False), ("experts asked for", True))
    ]
    for way in ways:
        pages.views += [shard.map for shard in way.model.gguf.shards]
    ids = np.random.default_rng(3).integers(300, 4000, given.tokens).tolist()
    ratios = []
    for _ in range(given.repeats):
        one, other = (turn(way, ids, pages, int(given.memory * pages.size)) for way in ways)
        if any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True)):
            raise SystemExit("logits differ")
        ratios.append(ways[0].seconds[-1] / ways[1].seconds[-1])
    held = f"{pages.size / 1e9:.2f} GB, {given.memory:.0%} kept"
    print(f"{given.model.name}, {held}, {given.tokens} tokens a round, {ISA}, {platform.machine()}")
    for way in ways:
        took, read = statistics.median(way.seconds), statistics.median(way.read)
        print(f"{way.name:<20} {1e3 * took:8.0f} ms a token  {read / 1e6:8.0f} MB read a token")
    told = " ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"{statistics.median(ratios):.2f} times as fast asked for ({told}); equal logits")


if __name__ == "__main__":
    main()

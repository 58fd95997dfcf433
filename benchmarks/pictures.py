"""ggq and llama.cpp's mtmd look at a picture in turns: same files, same threads; prints a table.

    pip install 'ggq[vision]' llama-cpp-python==0.3.36
    python benchmarks/pictures.py [gemma3 qwen2.5vl ...] [--type Q8_0] [--layers 1,3] [-t 2] [-r 5]

Towers have published shapes and random weights, the text model two layers as wide as the rows, in
F16. Both sides stay open and take turns, each picture a new one; what is compiled and read from
disk counts for neither. *encode*: a picture's rows, its preparation included; *first*: the same and
a question, to the first token. Ratios are llama.cpp's time over ggq's of the same pair: median and
quartiles. Several ``--layers`` also say, by a line through the medians, what all layers would take.
The limit is what float32 multiply-adds reach here.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from towers import TOWERS, depth_of, macs, write_projector, write_text

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

HEAD = """\
| tower | layers | tokens | GMAC | encode: ggq | llama.cpp | times | of the peak | first: ggq \
| llama.cpp | times | pairs |
|---|---|---|---|---|---|---|---|---|---|---|---|"""
QUESTION = " w1 w2 w3 w4 w5 w6 w7 w8"


def photo(seed: int) -> np.ndarray:
    """Return a picture of 1024 x 1024 pixels, uint8 (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (1024, 1024, 3), np.uint8)


# --- the sides, each in a process of its own ---


class Ggq:
    """One side: `shown` makes a picture, not timed; `encode` and `first` are."""

    def __init__(self, model: str, projector: str, threads: int):
        import ggq
        from ggq.runtime.engine.eyes import Eyes
        from ggq.runtime.pictures.gallery import Gallery

        self.model = found = ggq.load(model, threads=threads, n_ctx=8192)
        # the text model is of another family, which a user would be told
        found.gallery = self.gallery = Gallery(Eyes.load(projector, threads), found.hparams.n_embd)
        found.hparams = dataclasses.replace(found.hparams, pictures=True)
        self.session = found.session()

    def shown(self, seed: int) -> Any:
        from PIL import Image

        from ggq.runtime.pictures.opening import open_picture

        file = io.BytesIO()
        Image.fromarray(photo(seed)).save(file, "BMP")
        return open_picture(file.getvalue(), "a picture")

    def encode(self, picture: Any) -> int:
        given = self.gallery.show(picture)
        block = next(piece for piece in given.pieces if not isinstance(piece, str))
        self.gallery.rows(block)
        return given.n_tokens

    def first(self, picture: Any) -> int:
        ids: list[int] = []
        for piece in self.gallery.show(picture).pieces:  # the vocabulary has no marks
            ids += [] if isinstance(piece, str) else piece.ids.tolist()
        self.session.truncate(0)
        return int(self.session.evaluate(ids + self.model.tokenize(QUESTION)).argmax())


class Mtmd:
    """The other side."""

    def __init__(self, model: str, projector: str, threads: int):
        from mtmd import Seeing

        # As many tokens as ggq sees; its own limit for Pixtral, which no file says, is 1024.
        self.model = Seeing(model, projector, threads, max_tokens=4096)

    def shown(self, seed: int) -> np.ndarray:
        return photo(seed)

    def encode(self, picture: np.ndarray) -> int:
        return len(self.model.encode(picture))

    def first(self, picture: np.ndarray) -> int:
        self.model.reset()
        with self.model.chunks(picture, after=QUESTION) as chunks:
            for is_picture, chunk in chunks:
                if is_picture:
                    self.model.look(chunk)
                elif ids := [i for i in self.model.ids(chunk) if i >= 0]:
                    self.model.evaluate(ids)
        return int(self.model.last_row().argmax())


SIDES: dict[str, Any] = {"ggq": Ggq, "llama.cpp": Mtmd}


def serve(side: str, model: str, projector: str, threads: int) -> None:
    """Look at pictures whenever a line says so: what to do, and the number of the picture."""
    found = SIDES[side](model, projector, threads)
    found.first(found.shown(0))
    print("ready", flush=True)
    for line in sys.stdin:
        what, seed = line.split()
        picture = found.shown(int(seed))
        start = time.perf_counter()
        n = getattr(found, what)(picture)
        print(json.dumps([time.perf_counter() - start, n]), flush=True)


class Worker:
    """A side's process."""

    def __init__(self, side: str, model: Path, projector: Path, threads: int):
        command = [sys.executable, __file__, "--side", side, str(model), str(projector)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [*command, "-t", str(threads)], stdin=pipe, stdout=pipe, text=True
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            sys.exit("a side's process ended: see above")
        return line

    def ask(self, what: str, seed: int) -> tuple[float, int]:
        """Return the seconds that it took, and the tokens."""
        assert self._process.stdin
        self._process.stdin.write(f"{what} {seed}\n")
        self._process.stdin.flush()
        seconds, n = json.loads(self._answer())
        return seconds, n

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def workers(
    sides: list[str], model: Path, projector: Path, threads: int
) -> Iterator[dict[str, Worker]]:
    """Yield a process for each side."""
    found: dict[str, Worker] = {}
    try:
        for side in sides:
            found[side] = Worker(side, model, projector, threads)
        yield found
    finally:
        for worker in found.values():
            worker.close()


def pairs(
    name: str, found: dict[str, Worker], given: argparse.Namespace
) -> dict[str, list[list[float]]]:
    """Return pairs of seconds, one a side, of each task; "tokens" are those of the sides."""
    order, until = list(found), time.monotonic() + given.seconds
    times: dict[str, list[list[float]]] = {"encode": [], "first": [], "tokens": []}
    for i in range(given.repeats):
        if i and time.monotonic() > until:
            break
        for j, what in enumerate(given.tasks):
            seen = {side: found[side].ask(what, 2 * i + j + 1) for side in order}
            times[what].append([seen[side][0] for side in found])
            if what == "encode":
                times["tokens"] = [[seen[side][1] for side in found]]
        told = [f"{t:.3f}" for what in given.tasks for t in times[what][-1]]
        print(name, *told, file=sys.stderr, flush=True)
        order.reverse()
    return times


def spread(times: list[list[float]]) -> str:
    """Return the median ratio of pairs and its quartiles."""
    ratios = [b / a for a, b in times]
    if len(ratios) < 2:
        return f"{ratios[0]:.2f}"
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"**{middle:.2f}** ({low:.2f}-{high:.2f})"


def medians(times: list[list[float]]) -> list[float]:
    return [statistics.median(side) for side in zip(*times, strict=True)]


def compare(name: str, layers: int, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Print a row of the table; return the medians by task."""
    from ggq.runtime.measure.roofline import float_peak

    width = TOWERS[name][2]
    model = folder / f"text-{width}.gguf"
    projector = folder / f"{name}-{layers}-{given.type}.gguf"
    if not model.exists():
        write_text(width, model)
    if not projector.exists():
        write_projector(name, projector, layers, given.type)
    if given.write:
        return {}
    sides = [s for s in SIDES if given.only in (None, s)]
    with workers(sides, model, projector, given.threads) as found:
        times = pairs(name, found, given)
    peak, work = float_peak(given.threads), macs(projector)
    cells = [name, layers, "/".join(f"{n:.0f}" for n in times["tokens"][0]), f"{work / 1e9:.0f}"]
    for what in given.tasks:
        cells += [f"{t:.2f}" for t in medians(times[what])]
        cells += [spread(times[what])] if len(sides) == 2 else []
        if what == "encode":
            shares = [work / t / peak for t in medians(times[what])]
            cells.append(" / ".join(f"{100 * share:.0f} %" for share in shares))
    cells += ["", "", ""] * (2 - len(given.tasks)) + [len(times["encode"])]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return {what: medians(times[what]) for what in given.tasks}


def extrapolated(name: str, found: dict[int, dict[str, list[float]]]) -> str:
    """Return a row: seconds of all layers, on the line through the fewest and the most measured."""
    (few, low), (many, high) = min(found.items()), max(found.items())
    cells = [name, f"{depth_of(name)} by a line", "", ""]
    for what in low:
        times = [
            b + (b - a) / (many - few) * (depth_of(name) - many)
            for a, b in zip(low[what], high[what], strict=True)
        ]
        cells += [*(f"{t:.2f}" for t in times), f"{times[1] / times[0]:.2f}"]
        cells += [""] if what == "encode" else []
    return f"| {' | '.join(cells)} | |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("towers", nargs="*", help=f"of {', '.join(TOWERS)}; default all")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--repeats", type=int, default=5, help="pairs of turns")
    parser.add_argument("--seconds", type=float, default=3600, help="begin no more pairs after")
    parser.add_argument("--type", choices=("F16", "Q8_0"), default="F16", help="of the projector")
    parser.add_argument("--layers", help="of the tower, 1,3 for instance; default all")
    parser.add_argument("--encode", action="store_true", help="only that, no first tokens")
    parser.add_argument("--only", choices=list(SIDES), help="one side alone")
    parser.add_argument("--folder", type=Path, help="keep the files there")
    parser.add_argument("--write", action="store_true", help="write the files, measure nothing")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.tasks = ("encode",) if given.encode else ("encode", "first")
    if given.side:
        serve(given.side, *given.towers, given.threads)
        return
    if unknown := sorted({*given.towers} - {*TOWERS}):
        parser.error(f"{unknown[0]}: of {', '.join(TOWERS)}")
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        for name in given.towers or TOWERS:
            asked = [int(n) for n in given.layers.split(",")] if given.layers else [depth_of(name)]
            found = {n: compare(name, n, given, folder) for n in sorted(set(asked))}
            if len(found) > 1 and not given.write and given.only is None:
                print(extrapolated(name, found), flush=True)


if __name__ == "__main__":
    main()

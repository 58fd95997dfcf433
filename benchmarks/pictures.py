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

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

HEAD = """\
| tower | layers | tokens | GMAC | encode: ggq | llama.cpp | times | of the peak | first: ggq \
| llama.cpp | times | pairs |
|---|---|---|---|---|---|---|---|---|---|---|---|"""
QUESTION = " w1 w2 w3 w4 w5 w6 w7 w8"
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def _siglip(side: int, patch: int = 14) -> dict[str, Any]:
    """Return SigLIP-so400m's settings."""
    return {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
        "num_attention_heads": 16, "patch_size": patch, "image_size": side,
    }  # fmt: skip


_QWEN = {"spatial_merge_size": 2, "num_heads": 16}
# projector, vision_config, columns of the text model, more of config.json, tensors left out
TOWERS: dict[str, tuple[str, dict[str, Any], int, dict[str, Any], tuple[str, ...]]] = {
    "gemma3": ("gemma3", _siglip(896), 2560, {}, ()),
    "qwen2.5vl": (
        "qwen2.5vl_merger",
        {
            **_QWEN, "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "patch_size": 14,
            "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
        },
        2048, {}, ("ln1.bias", "ln2.bias", "post_ln.bias", "patch_embd.bias"),
    ),
    "qwen3vl": (  # as Qwen3.5 has it: without deepstack
        "qwen3vl_merger",
        {
            **_QWEN, "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "patch_size": 16,
            "num_position_embeddings": 2304,
        },
        2560, {}, (),
    ),
    "smolvlm": (
        "idefics3", _siglip(384), 2048,
        {"scale_factor": 3, "preprocessor": {**HALF, "size": {"longest_edge": 1536}}}, (),
    ),
    "pixtral": (
        "pixtral",
        {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "patch_size": 16, "image_size": 1024, "hidden_act": "silu",
        },
        5120, {}, (".bias",),
    ),
}  # fmt: skip


def depth_of(name: str) -> int:
    """Return how many layers a published tower has."""
    said = TOWERS[name][1]
    return int(said.get("depth") or said["num_hidden_layers"])


def write_projector(name: str, path: Path, layers: int, wanted: str) -> None:
    """Write a projector file with random weights."""
    from ggq import quants
    from ggq.converters.projector import VALUE_TYPES, stored_type
    from ggq.gguf import GGUFWriter
    from ggq.models import vision

    projector, said, width, more, without = TOWERS[name]
    said = {**said, "depth" if "depth" in said else "num_hidden_layers": layers}
    text = {"hidden_size": width, "rms_norm_eps": 1e-6}
    config = {"vision_config": said, "text_config": text, "preprocessor": HALF, **more}
    tower, rng = vision.get(projector), np.random.default_rng(0)
    sight: Any = tower.sight(config)
    writer = GGUFWriter(path, force=True)
    writer.add("general.architecture", "clip")
    for key, value, kind in tower.metadata(config):
        listed = list(value) if isinstance(value, tuple) else value
        writer.add(key, listed, VALUE_TYPES[kind.removesuffix("s")])
    tensors = {}
    for label, row, layer in tower.rows(sight):
        shape = tower.shape(row, sight, layer)
        left_out = row.optional and label.endswith((*without, "img_break"))
        if not left_out:
            tensors[label] = shape, quants.get(stored_type(shape, row, wanted)[0])
    for label, (shape, stored) in tensors.items():
        writer.add_tensor(label, shape, stored.ggml_id)
    writer.begin()
    for label, (shape, stored) in tensors.items():
        x = rng.standard_normal(shape[-1] * 64, np.float32) * np.float32(shape[-1] ** -0.5)
        x = np.resize(x, shape) if len(shape) > 1 else 1 + 0.1 * np.resize(x, shape)
        flat = np.ascontiguousarray(x, np.float32).reshape(-1, shape[-1])
        writer.write(label, stored.quantize(flat).view(np.uint8).reshape(len(flat), -1))
    writer.finish()


def write_text(width: int, path: Path) -> None:
    """Write the text model."""
    import synthetic

    synthetic.write((width, 2, width // 128, width // 128, 4 * width, 4096, False), "F16", path)


def photo(seed: int) -> np.ndarray:
    """Return a picture of 1024 x 1024 pixels, uint8 (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (1024, 1024, 3), np.uint8)


# --- the sides, each in a process of its own ---


class Ggq:
    """One side: `shown` makes a picture, not timed; `encode` and `first` are."""

    def __init__(self, model: str, projector: str, threads: int):
        import ggq

        self.model = ggq.load(model, mmproj=projector, threads=threads, n_ctx=8192)
        self.session = self.model.session()
        assert self.model.gallery is not None
        self.gallery = self.model.gallery

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
        for piece in self.gallery.show(picture).pieces:
            ids += self.model.tokenize(piece) if isinstance(piece, str) else piece.ids.tolist()
        self.session.truncate(0)
        return int(self.session.evaluate(ids + self.model.tokenize(QUESTION)).argmax())


class Mtmd:
    """The other side."""

    def __init__(self, model: str, projector: str, threads: int):
        from mtmd import Seeing

        self.model = Seeing(model, projector, threads)

    def shown(self, seed: int) -> np.ndarray:
        return photo(seed)

    def encode(self, picture: np.ndarray) -> int:
        return len(self.model.encode(picture))

    def first(self, picture: np.ndarray) -> int:
        self.model.reset()
        with self.model.chunks(picture, after=QUESTION) as chunks:
            for _, chunk in chunks:
                self.model.look(chunk)
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


# --- the limit ---


def macs(projector: Path) -> float:
    """Return the multiply-adds of encoding a picture: matrices, and attention twice."""
    from ggq.runtime.engine.eyes import Eyes
    from ggq.runtime.pictures.families import family_of
    from ggq.runtime.pictures.plans import View

    total = 0.0
    with Eyes.load(projector, 1) as eyes:
        sight, tower = eyes.sight, eyes.tower
        per_patch = per_token = 0
        for name, row, layer in tower.rows(sight):
            shape = tower.shape(row, sight, layer)
            if len(shape) > 1 and "position" not in name and name in eyes._file.tensors:
                size = int(np.prod(shape))
                per_patch += size if name.startswith("v.") else 0
                per_token += 0 if name.startswith("v.") else size
        for view in family_of(sight.projector).plan(sight, 1024, 1024):
            if not isinstance(view, View):
                continue
            n, tokens = sight.view(*view.size).n, sight.tokens(*view.size)
            whole = sight.n_layer // sight.windowed if sight.windowed else sight.n_layer
            seen = whole * n + (sight.n_layer - whole) * min(n, (112 // sight.patch) ** 2)
            total += n * per_patch + tokens * per_token
            total += 2.0 * n * seen * sight.n_head * sight.head_dim
    return total


def pairs(found: dict[str, Worker], given: argparse.Namespace) -> dict[str, list[list[float]]]:
    """Return pairs of seconds, one a side, of each task; "tokens" are those of the sides."""
    order, until = list(found), time.monotonic() + given.seconds
    times: dict[str, list[list[float]]] = {"encode": [], "first": [], "tokens": []}
    for i in range(given.repeats):
        if i and time.monotonic() > until:
            break
        for j, what in enumerate(("encode", "first")):
            seen = {side: found[side].ask(what, 2 * i + j + 1) for side in order}
            times[what].append([seen[side][0] for side in found])
            if what == "encode":
                times["tokens"] = [[seen[side][1] for side in found]]
        print(
            " ".join(f"{t:.3f}" for w in times for t in times[w][-1]), file=sys.stderr, flush=True
        )
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
        times = pairs(found, given)
    peak, work = float_peak(given.threads), macs(projector)
    cells = [name, layers, "/".join(f"{n:.0f}" for n in times["tokens"][0]), f"{work / 1e9:.0f}"]
    for what in ("encode", "first"):
        cells += [f"{t:.2f}" for t in medians(times[what])]
        cells += [spread(times[what])] if len(sides) == 2 else []
        if what == "encode":
            shares = [work / t / peak for t in medians(times[what])]
            cells.append(" / ".join(f"{100 * share:.0f} %" for share in shares))
    cells.append(len(times["first"]))
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return {what: medians(times[what]) for what in ("encode", "first")}


def extrapolated(name: str, found: dict[int, dict[str, list[float]]]) -> str:
    """Return a row: seconds of all layers, on the line through the fewest and the most measured."""
    (few, low), (many, high) = min(found.items()), max(found.items())
    cells = [name, f"{depth_of(name)} by a line", "", ""]
    for what in ("encode", "first"):
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
    parser.add_argument("--only", choices=list(SIDES), help="one side alone")
    parser.add_argument("--folder", type=Path, help="keep the files there")
    parser.add_argument("--write", action="store_true", help="write the files, measure nothing")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    given = parser.parse_args()
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

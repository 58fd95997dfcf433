"""ggq and llama.cpp's mtmd look at a picture in turns: same files, same threads; prints a table.

    pip install 'ggq[vision]' llama-cpp-python==0.3.36
    python benchmarks/pictures.py [gemma3 qwen2.5vl ...] [-t 2] [-r 3] [--layers N]

Towers have published shapes and random F16 weights, the text model two layers as wide as the rows.
Each turn is a process of its own, which looks at one picture before, so that what is compiled and
read from disk counts for neither. *encode*: a picture's rows, its preparation included; *first*:
the same and a question, to the first token. The limit is what float32 multiply-adds reach here.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

HEAD = """\
| tower | tokens | GMAC | encode: ggq | llama.cpp | times | of the peak | first: ggq | llama.cpp \
| times | peak, GMAC/s |
|---|---|---|---|---|---|---|---|---|---|---|"""
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


def write_projector(name: str, path: Path, layers: int | None) -> None:
    """Write a projector file with random weights."""
    from ggq import quants
    from ggq.converters.projector import VALUE_TYPES, stored_type
    from ggq.gguf import GGUFWriter
    from ggq.models import vision

    projector, said, width, more, without = TOWERS[name]
    said = dict(said)
    if layers:
        key = "depth" if "depth" in said else "num_hidden_layers"
        said[key] = min(layers, said[key])
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
            tensors[label] = shape, quants.get(stored_type(shape, row, "F16")[0])
    for label, (shape, kind) in tensors.items():
        writer.add_tensor(label, shape, kind.ggml_id)
    writer.begin()
    for label, (shape, kind) in tensors.items():
        x = rng.standard_normal(shape[-1] * 64, np.float32) * np.float32(shape[-1] ** -0.5)
        x = np.resize(x, shape) if len(shape) > 1 else 1 + 0.1 * np.resize(x, shape)
        flat = np.ascontiguousarray(x, np.float32).reshape(-1, shape[-1])
        writer.write(label, kind.quantize(flat).view(np.uint8).reshape(len(flat), -1))
    writer.finish()


def write_text(width: int, path: Path) -> None:
    """Write the text model."""
    import synthetic

    synthetic.write((width, 2, width // 128, width // 128, 4 * width, 4096, False), "F16", path)


def photo(seed: int) -> np.ndarray:
    """Return a picture of 1024 x 1024 pixels, uint8 (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (1024, 1024, 3), np.uint8)


# --- a turn, in a process of its own ---


def turn_of_ggq(model: str, projector: str, threads: int) -> dict[str, Any]:
    from PIL import Image

    import ggq
    from ggq.runtime.pictures.opening import open_picture

    with ggq.load(model, mmproj=projector, threads=threads, n_ctx=8192) as found:
        gallery, session = found.gallery, found.session()
        assert gallery is not None

        def shown(seed: int) -> Any:
            file = io.BytesIO()
            Image.fromarray(photo(seed)).save(file, "BMP")
            return open_picture(file.getvalue(), "a picture")

        def encode(picture: Any) -> int:
            given = gallery.show(picture)
            block = next(piece for piece in given.pieces if not isinstance(piece, str))
            gallery.rows(block)
            return given.n_tokens

        def first(picture: Any) -> int:
            ids: list[int] = []
            for piece in gallery.show(picture).pieces:
                ids += found.tokenize(piece) if isinstance(piece, str) else piece.ids.tolist()
            session.truncate(0)
            return int(session.evaluate(ids + found.tokenize(QUESTION)).argmax())

        return _timed(shown, encode, first)


def turn_of_llama_cpp(model: str, projector: str, threads: int) -> dict[str, Any]:
    from mtmd import Seeing

    found = Seeing(model, projector, threads)

    def first(rgb: np.ndarray) -> int:
        found.reset()
        with found.chunks(rgb, after=QUESTION) as chunks:
            for _, chunk in chunks:
                found.look(chunk)
        return int(found.last_row().argmax())

    return _timed(photo, lambda rgb: len(found.encode(rgb)), first)


def _timed(shown: Callable, encode: Callable, first: Callable) -> dict[str, Any]:
    first(shown(0))
    made = [shown(1), shown(2)]
    start = time.perf_counter()
    n = encode(made[0])
    middle = time.perf_counter()
    first(made[1])
    return {"encode": middle - start, "first": time.perf_counter() - middle, "tokens": n}


TURNS = {"ggq": turn_of_ggq, "llama.cpp": turn_of_llama_cpp}


def in_a_process(side: str, model: Path, projector: Path, threads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--turn", side, str(model), str(projector)]
    done = subprocess.run([*command, "-t", str(threads)], stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


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


def compare(name: str, given: argparse.Namespace, folder: Path) -> str:
    """Return a row of the table."""
    from ggq.runtime.measure.roofline import float_peak

    width = TOWERS[name][2]
    model, projector = folder / f"text-{width}.gguf", folder / f"{name}-{given.layers}.gguf"
    if not model.exists():
        write_text(width, model)
    if not projector.exists():
        write_projector(name, projector, given.layers)
    sides = [s for s in TURNS if given.only in (None, s)]
    turns: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(given.repeats):
        for side in sides:
            turns[side].append(in_a_process(side, model, projector, given.threads))
            print(name, side, turns[side][-1], file=sys.stderr, flush=True)
    peak, work = float_peak(given.threads), macs(projector)
    cells = [name, "/".join(str(turns[s][0]["tokens"]) for s in sides), f"{work / 1e9:.0f}"]
    for what in ("encode", "first"):
        times = [[turn[what] for turn in turns[side]] for side in sides]
        cells += [f"{statistics.median(t):.2f}" for t in times]
        if len(sides) == 2:
            pairs = zip(*times, strict=True)
            cells.append(f"{statistics.median(b / a for a, b in pairs):.2f}")
        if what == "encode":
            shares = [work / statistics.median(t) / peak for t in times]
            cells.append(" / ".join(f"{100 * share:.0f} %" for share in shares))
    return f"| {' | '.join(cells)} | {peak / 1e9:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("towers", nargs="*", help=f"of {', '.join(TOWERS)}; default all")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--repeats", type=int, default=3, help="pairs of turns")
    parser.add_argument("--layers", type=int, help="of the tower, at most: shorter turns")
    parser.add_argument("--only", choices=list(TURNS), help="one side alone")
    parser.add_argument("--folder", type=Path, help="keep the files there")
    parser.add_argument("--turn", choices=list(TURNS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.turn:
        print(json.dumps(TURNS[given.turn](*given.towers, given.threads)))
        return
    if unknown := sorted({*given.towers} - {*TOWERS}):
        parser.error(f"{unknown[0]}: of {', '.join(TOWERS)}")
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        for name in given.towers or TOWERS:
            print(compare(name, given, folder), flush=True)


if __name__ == "__main__":
    main()

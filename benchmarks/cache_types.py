"""What types of the KV cache take, beside f16: bytes, time of a token far in, KL divergence.

    python benchmarks/cache_types.py MODEL.gguf [TEXT] [--types q8_0/q4_0,q4_0] [-t 2] [-r 15]

A type is that of keys and values or, with a slash, of both. Time: a token after 16384 others
(--depth), in turns with f16; the cache is not computed but filled, which takes as long to read.
With one thread it is processor time, so that other load counts less. A ratio is the median of the
rounds'. Divergence, where TEXT is given: of the next token's
distribution from f16's, over the second half of the text's first 4096 tokens (--positions).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import ggq

TURNS, STEP = 4, 128  # tokens of a type in a round; tokens of a text's step


def log_softmax(rows: np.ndarray) -> np.ndarray:
    """Return the logarithms of each row's probabilities in float64."""
    rows = rows.astype(np.float64)
    rows -= rows.max(axis=-1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))


def divergences(model: ggq.Model, base: ggq.Model, ids: np.ndarray) -> np.ndarray:
    """Return KL(base || model) in nats after each token of the second half."""
    found = []
    pairs = [(m.engine, m.engine.sequence()) for m in (model, base)]
    for start in range(0, len(ids), STEP):
        part = ids[start : start + STEP]
        rows = [engine.evaluate(sequence, part, every=True) for engine, sequence in pairs]
        if start >= len(ids) // 2:
            q, p = (log_softmax(r) for r in rows)
            found.append((np.exp(p) * (p - q)).sum(axis=-1))
    for _, sequence in pairs:
        sequence.free()
    return np.concatenate(found)


def filled(model: ggq.Model, depth: int) -> object:
    """Return a sequence of ``depth`` positions that nobody has computed."""
    sequence, cache = model.engine.sequence(), model.engine.cache
    for pages in (*cache.keys, *cache.values):
        pages[:] = 0  # memory of its own, not the system's one page of zeros
    sequence.reserve(depth)
    sequence.adopt(depth, 0, sequence.state if cache.state_floats else None)
    return sequence


def seconds(clock: Callable[[], float], model: ggq.Model, sequence: object, depth: int) -> float:
    """Return the time of some tokens, taken back afterwards."""
    start = clock()
    for token in range(TURNS):
        model.engine.evaluate(sequence, [100 + token])
    taken = clock() - start
    sequence.truncate(depth)
    return taken / TURNS


def main() -> None:
    """Print a line for each type."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("text", type=Path, nargs="?")
    parser.add_argument("--types", default="q8_0,q8_0/q4_0,f16/q4_0,q4_0")
    parser.add_argument("--depth", type=int, default=16384)
    parser.add_argument("--positions", type=int, default=4096)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--rounds", type=int, default=15)
    given = parser.parse_args()

    def opened(kind: str, n_ctx: int) -> ggq.Model:
        pair = tuple(kind.split("/")) if "/" in kind else kind
        return stack.enter_context(
            ggq.load(given.model, n_ctx=n_ctx, threads=given.threads, cache_type=pair)
        )

    clock = time.process_time if given.threads == 1 else time.perf_counter
    for kind in given.types.split(","):
        with ExitStack() as stack:
            models = [opened(k, given.depth + 64) for k in (kind, "f16")]
            if given.rounds:
                sequences = [filled(model, given.depth) for model in models]
                pairs = list(zip(models, sequences, strict=True))
                rounds = [
                    [seconds(clock, model, sequence, given.depth) for model, sequence in pairs]
                    for _ in range(given.rounds + 1)  # the first compiles
                ][1:]
                ms, base = (1e3 * statistics.median(column) for column in zip(*rounds, strict=True))
                ratio = statistics.median(a / b for a, b in rounds)
                told = f"{ms:.1f} ms a token, f16 {base:.1f}, ratio {ratio:.3f}"
            else:
                told = "not timed"
            share = models[0].engine.cache.nbytes / models[1].engine.cache.nbytes
            sys.stdout.write(f"{kind:10} {share:.1%} of f16's bytes; {told}")
            if given.text:
                for model in models:
                    model.close()
                text = given.text.read_text(encoding="utf-8")[: 12 * given.positions]
                models = [opened(k, given.positions) for k in (kind, "f16")]
                ids = models[0].tokenize(text, add_special=False)[: given.positions]
                found = divergences(*models, ids)
                error = found.std() / len(found) ** 0.5
                sys.stdout.write(f"; KLD {found.mean():.5f} +- {error:.5f} ({len(found)} tokens)")
            sys.stdout.write("\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

"""What a step of several tokens costs over a step of one, in turns on one file; prints ratios.

    python benchmarks/steps.py MODEL.gguf [MODEL.gguf ...] [--tokens 2,4,8] [-t 2] [-r 25]

The tokens are of one sequence, as when drafts are checked; each step follows the same 64 tokens. A
ratio is the median of the rounds'. GGQ_ISA chooses the instruction set. Let nothing else run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

import ggq
from ggq.jit import ISA

BEFORE, TURNS = 64, 4  # tokens before the steps; steps of each kind in a round


def seconds(session: object, ids: list[int]) -> float:
    """Return the time of one step, taken back afterwards."""
    start = time.perf_counter()
    session.evaluate(ids)
    taken = time.perf_counter() - start
    session.truncate(BEFORE)
    return taken


def measure(path: Path, sizes: list[int], given: argparse.Namespace) -> None:
    """Print one line: milliseconds of a token and the ratio of each size."""
    with ggq.load(path, n_ctx=2 * BEFORE, threads=given.threads) as model:
        session = model.session()
        ids = np.random.default_rng(1).integers(300, 4000, BEFORE + max(sizes)).tolist()
        session.evaluate(ids[:BEFORE])
        new, rounds = ids[BEFORE:], []
        for _ in range(given.repeats + 1):  # the first compiles
            best = {n: min(seconds(session, new[:n]) for _ in range(TURNS)) for n in (1, *sizes)}
            rounds.append(best)
        alone = statistics.median(best[1] for best in rounds[1:])
        ratios = {n: statistics.median(b[n] / b[1] for b in rounds[1:]) for n in sizes}
    costs = "  ".join(f"{n} tokens {ratio:.2f}" for n, ratio in ratios.items())
    print(f"{path.name:<32} {ISA:<10} 1 token {1e3 * alone:.1f} ms  {costs}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--tokens", default="2,4,8", help="sizes of steps, up to 64 in all")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--repeats", type=int, default=25)
    given = parser.parse_args()
    for path in given.models:
        measure(path, [int(n) for n in given.tokens.split(",")], given)


if __name__ == "__main__":
    main()

"""Decoding and prefill of several checkouts in one short window: all alive, a few tokens in turns.

    python benchmarks/turns.py MODEL.gguf TREE TREE ... [-t 2] [--seconds 100] [--prefill]

A process for each tree; the machine's drift falls on all, so that a window of two minutes tells
differences of a hundredth. Ratios are each tree's speed over the first one's in the same round:
their median, quartiles and number. ``vs_commit.py`` runs `ggq bench` instead, in more minutes.
GGQ_ISA holds for all trees.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUND = 0.12  # seconds of a tree's turn, about
PROMPT = 256  # tokens of a turn of prefill


def work(model_path: str, threads: int, prefill: bool) -> None:
    """Measure whenever a line comes; write seconds per token."""
    import ggq

    model = ggq.load(model_path, n_ctx=512, threads=threads)
    engine, prompt = model.engine, list(range(3, 3 + PROMPT))
    sequence = engine.sequence()

    def turn(n: int) -> float:
        sequence.truncate(0)
        if not prefill:
            engine.evaluate(sequence, [5])
        start = time.perf_counter()
        for step in [prompt] if prefill else [[7 + i] for i in range(n)]:
            engine.evaluate(sequence, step)
        return (time.perf_counter() - start) / (PROMPT if prefill else n)

    turn(2)
    print("ready", flush=True)
    for line in sys.stdin:
        print(turn(int(line)), flush=True)


def start(tree: Path, given: argparse.Namespace) -> subprocess.Popen[str]:
    """Start a tree's process."""
    command = [sys.executable, str(Path(__file__).resolve()), str(given.model), "--worker"]
    command += ["-t", str(given.threads), *(["--prefill"] if given.prefill else [])]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=tree, env=environment, stdin=pipe, stdout=pipe, stderr=None, text=True
    )


def ask(worker: subprocess.Popen[str], n: int) -> float:
    """Return a worker's seconds per token."""
    assert worker.stdin
    assert worker.stdout
    worker.stdin.write(f"{n}\n")
    worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        sys.exit("a tree's process ended: see above")
    return float(line)


def measure(workers: list[subprocess.Popen[str]], until: float) -> list[list[float]]:
    """Return rounds of seconds per token, each worker in another place from round to round."""
    rounds: list[list[float]] = []
    for worker in workers:
        ask(worker, 2)
    n = max(2, round(ROUND / max(ask(worker, 2) for worker in workers)))
    order = list(range(len(workers)))
    while len(rounds) < 2 or time.monotonic() < until:
        found = [0.0] * len(workers)
        for i in order:
            found[i] = ask(workers[i], n)
        rounds.append(found)
        order = order[1:] + order[:1] if len(rounds) % 2 else order[::-1]
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("trees", nargs="*", type=Path, help="checkouts; the first is the base")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=100, help="the start included")
    parser.add_argument("--prefill", action="store_true", help="prompts, not answers")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(str(given.model), given.threads, given.prefill)
        return
    for tree in given.trees:
        if not (tree / "ggq").is_dir():
            sys.exit(f"{tree}: not a checkout of ggq")
    until = time.monotonic() + given.seconds
    given.model = given.model.resolve()
    workers = [start(tree.resolve(), given) for tree in given.trees]
    for worker in workers:
        assert worker.stdout
        if worker.stdout.readline().strip() != "ready":
            sys.exit("a tree's process did not start: see above")
    rounds = measure(workers, until)
    for worker in workers:
        worker.communicate()
    what = f"{given.model.name} {'prefill' if given.prefill else 'decode'}"
    for i, tree in enumerate(given.trees):
        speed = 1 / statistics.median(found[i] for found in rounds)
        q = sorted(found[0] / found[i] for found in rounds)
        low, middle, high = q[len(q) // 4], statistics.median(q), q[3 * len(q) // 4]
        print(
            f"{what:<32} {tree.resolve().name:<10} {speed:8.1f} t/s"
            f"  over the first {middle:.3f} ({low:.3f} to {high:.3f}, {len(q)} rounds)"
        )


if __name__ == "__main__":
    main()

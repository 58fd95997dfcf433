"""Decoding and prefill of this tree beside another commit's, in turns on one file; prints ratios.

    python benchmarks/vs_commit.py MODEL.gguf [MODEL.gguf ...] --base 9d1c290 [-t 2] [-r 7]

Each turn is a process of `ggq bench` in either tree, the first of each (which compiles) not
counted. A ratio is the median of the pairs', new / old: above 1 this tree is faster. Let nothing
else run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROMPT, GENERATED = 512, 64


def speeds(tree: Path, model: Path, threads: int) -> dict[str, float]:
    """Return tokens per second of one process: prefill and decode."""
    command = [sys.executable, "-m", "ggq", "bench", str(model), "-p", str(PROMPT)]
    command += ["-n", str(GENERATED), "-t", str(threads), "-r", "1", "-o", "json"]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, check=True)
    rows = json.loads(done.stdout)
    return {"prefill" if row["n_prompt"] else "decode": row["avg_ts"] for row in rows}


def compare(old: Path, model: Path, given: argparse.Namespace) -> None:
    """Print medians of both trees and of the pairs' ratios."""
    pairs = []
    for turn in range(given.repeats + 1):
        order = (ROOT, old) if turn % 2 else (old, ROOT)
        made = {tree: speeds(tree, model, given.threads) for tree in order}
        if turn:
            pairs.append((made[ROOT], made[old]))
    for what in ("prefill", "decode"):
        new_ts, old_ts = (statistics.median(pair[k][what] for pair in pairs) for k in (0, 1))
        ratios = sorted(new[what] / old[what] for new, old in pairs)
        middle = statistics.median(ratios)
        print(
            f"{model.name:<32} {what:<8} {new_ts:8.1f} / {old_ts:8.1f} t/s = {middle:.3f}"
            f"  ({ratios[0]:.3f} to {ratios[-1]:.3f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--base", default="9d1c290", help="commit, or the folder of a checkout")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--repeats", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        old = Path(given.base)
        git = ["git", "-C", str(ROOT), "worktree"]
        if not old.is_dir():
            old = Path(folder) / "base"
            subprocess.run([*git, "add", "-q", "--detach", str(old), given.base], check=True)
        try:
            for model in given.models:
                compare(old, model.resolve(), given)
        finally:
            if old.parent == Path(folder):
                subprocess.run([*git, "remove", "--force", str(old)], check=True)


if __name__ == "__main__":
    main()

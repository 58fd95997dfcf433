"""Rates of the block encoders beside ggml's own, in turns on the same rows, one thread each.

python benchmarks/encoders.py [--types Q4_K,Q6_K] [--seconds 1] [--json FILE]

Each round times ggq, then ggml (ggml_quantize_chunk of llama-cpp-python 0.3.36), so that both meet
the same neighbours; printed are medians in million weights per second and of the paired ratios.
Threads: the same work split over two Python threads, against one. First call: compiling, or loading
from the cache on disk.
"""

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/tools")]

COLUMNS = 4096


def seconds(call):
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def rows_for(quantize, budget):
    """Return how many rows fill ``budget`` seconds, in steps of 16."""
    probe = np.random.default_rng(0).standard_normal((16, COLUMNS), np.float32)
    quantize(probe)
    took = min(seconds(lambda: quantize(probe)) for _ in range(3))
    return 16 * int(np.clip(budget / took, 1, 64))


def measure(kind, oracle, weights, budget):
    """Return the medians of one type: ours, ggml's, their paired ratio, two threads over one."""
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((1024, COLUMNS)) * 0.02).astype(np.float32)
    ours_x = x[: rows_for(lambda part: kind.quantize(part, weights), budget / 10)]
    their_x = x[: rows_for(lambda part: oracle.quantize(kind, part, weights), budget / 10)]
    same = np.array_equal(kind.quantize(their_x, weights), oracle.quantize(kind, their_x, weights))
    ours, theirs, two = [], [], []
    with ThreadPoolExecutor(2) as pool:
        halves = np.array_split(ours_x, 2)
        for _ in range(9):
            mine = seconds(lambda: kind.quantize(ours_x, weights))
            ours.append(ours_x.size / mine / 1e6)
            theirs.append(
                their_x.size / seconds(lambda: oracle.quantize(kind, their_x, weights)) / 1e6
            )
            split = seconds(lambda: list(pool.map(lambda h: kind.quantize(h, weights), halves)))
            two.append(mine / split)
    return {
        "type": kind.name,
        "importance": weights is not None,
        "ggq": statistics.median(ours),
        "ggml": statistics.median(theirs),
        "ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        "two_threads": statistics.median(two),
        "same_bytes": same,
    }


def main():
    """Print the table and write the figures as JSON if asked."""
    from make_encoder_hashes import Ggml, written

    from ggq.quants.ternary import TernaryType

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--types", default="")
    parser.add_argument("--seconds", type=float, default=1.0, help="per type and encoder")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    oracle, results = Ggml(), []
    wanted = options.types.upper().split(",") if options.types else None
    importance = np.random.default_rng(2).random(COLUMNS, np.float32) + np.float32(0.01)
    print("type    importance   ggq M/s  ggml M/s   ratio  2 threads  first call  same bytes")
    for kind in written():
        if kind.name not in wanted if wanted else isinstance(kind, TernaryType):
            continue
        for weights in [importance] if kind.needs_importance else [None, importance]:
            first = seconds(
                lambda k=kind, w=weights: k.quantize(np.zeros((1, COLUMNS), np.float32), w)
            )
            r = measure(kind, oracle, weights, options.seconds) | {"first_call_s": first}
            results.append(r)
            print(
                f"{kind.name:7} {'with' if r['importance'] else 'without':10} {r['ggq']:9.1f} "
                f"{r['ggml']:9.1f} {r['ratio']:7.2f} {r['two_threads']:10.2f} "
                f"{first:10.2f}s  {'yes' if r['same_bytes'] else 'NO'}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

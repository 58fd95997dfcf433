"""Prints the processor seconds that each serving type's grid takes to encode a weight.

  python benchmarks/grid_rates.py

Rows of 4,096 normal weights with an importance, one thread, the least of five runs.
"""

from __future__ import annotations

import time

import numpy as np

from ggq.converters import grids

N = 4096


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, N)).astype(np.float32)
    importance = rng.lognormal(0, 1, N).astype(np.float32)
    for name, chosen in grids.types().items():
        grid = grids.grid(chosen.codes, 128 if chosen.grouped else N, "BF16")
        grid.quantize(x[:1], importance)  # compiled or read from the cache
        least = float("inf")
        for _ in range(5):
            start = time.process_time()
            grid.quantize(x, importance)
            least = min(least, time.process_time() - start)
        print(
            f"{name:12} {grid.bits_per_weight:6.3f} bits  {1e9 * least / x.size:6.1f} ns a weight"
        )


if __name__ == "__main__":
    main()

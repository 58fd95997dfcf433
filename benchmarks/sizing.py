"""Prints what converting and a batch take on nodes of a given size: docs/scale.md's tables.

  python benchmarks/sizing.py --nodes 10 --cores 64 --bandwidth 300 --disk 2 --requests 1e6

Arithmetic from rates that were measured on another, small machine (docs/speed.md, docs/scale.md);
``--prefill`` and ``--share`` take one's own, from ``ggq bench``. A prompt's tokens go by the speed
of the cores, a step of answers by the slower of reading the weights and multiplying them. Weights,
layers and experts are those of published models.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

BITS = 4.85  # a weight in Q4_K_M files
GRID = 4.125  # in W4A16 folders, groups of 128
RANGE = 64  # requests of a range: the answers that a death costs


@dataclass(frozen=True)
class Model:
    """``active``: weights that a token meets; ``experts``: of a layer, and how many a token takes.

    ``kept``: bytes of keys and values, or what stands for them, of a token in F16.
    """

    name: str
    weights: float
    active: float
    kept: int
    experts: tuple[int, int] = (1, 1)

    def read(self, together: int) -> float:
        """Return the weights that a step of so many sequences reads, experts drawn evenly."""
        n, taken = self.experts
        if n == 1:
            return self.weights
        dense = (self.active - self.weights * taken / n) / (1 - taken / n)
        met = 1 - (1 - taken / n) ** together
        return dense + (self.weights - dense) * met


MODELS = (
    Model("8 B", 8.03e9, 8.03e9, 32 * 2 * 8 * 128 * 2),
    Model("70 B", 70.6e9, 70.6e9, 80 * 2 * 8 * 128 * 2),
    Model("405 B", 405.9e9, 405.9e9, 126 * 2 * 8 * 128 * 2),
    Model("1 T of 384 experts", 1.04e12, 32.6e9, 61 * 576 * 2, (384, 8)),
)


def batch(model: Model, given: argparse.Namespace) -> str:
    """Return a row: file, memory of a node, its tokens a second, hours for all nodes together."""
    file = model.weights * BITS / 8
    memory = file + given.parallel * given.ctx * model.kept
    rate = given.prefill * given.cores  # weights times tokens a second
    prompt = given.prompt * model.active / rate
    reading = model.read(given.parallel) * BITS / 8 / (given.share * given.bandwidth * 1e9)
    step = max(reading, given.parallel * model.active / rate)
    answer = given.answer * step / given.parallel
    hours = given.requests * (prompt + answer) / given.nodes / 3600
    tokens = given.parallel / step
    death = RANGE * (prompt + answer) / 60
    cells = (f"{file / 1e9:,.0f} GB", f"{memory / 1e9:,.0f} GB", f"{given.prompt / prompt:,.0f}",
             f"{tokens:,.0f}", f"{hours:,.0f}", f"{death:,.1f} min")  # fmt: skip
    return " | ".join(cells)


def convert(model: Model, given: argparse.Namespace) -> str:
    """Return a row: source and output on disk, minutes of one node and of all, without passes."""
    cells = []
    for bits, ns in ((BITS, given.encode), (GRID, given.encode_grid)):
        size = model.weights * bits / 8
        reading = (2 * model.weights + size) / (given.disk * 1e9)
        minutes = (reading + ns * 1e-9 * model.weights / given.cores) / 60
        cells += [f"{2 * model.weights / 1e9:,.0f} + {size / 1e9:,.0f} GB", f"{minutes:,.1f} min"]
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--cores", type=int, default=64, help="of a node")
    parser.add_argument("--bandwidth", type=float, default=300, help="of a node's memory, GB/s")
    parser.add_argument("--disk", type=float, default=2, help="GB/s")
    parser.add_argument("--requests", type=float, default=1e6)
    parser.add_argument("--prompt", type=int, default=500, help="tokens of each")
    parser.add_argument("--answer", type=int, default=200, help="tokens of each")
    parser.add_argument("--parallel", type=int, default=16, help="as ggq batch takes it")
    parser.add_argument("--ctx", type=int, default=2048, help="tokens of each answer's context")
    does = "weights times prompt tokens that a core does in a second"
    parser.add_argument("--prefill", type=float, default=1.8e11, help=does)
    parser.add_argument("--share", type=float, default=0.85, help="of the bandwidth, decoding")
    parser.add_argument("--encode", type=float, default=10, help="Q4_K_M: ns of a core a weight")
    parser.add_argument("--encode-grid", type=float, default=33, help="W4A16: the same")
    given = parser.parse_args()
    print("batch: | file | memory of a node | prompt tokens/s | answer tokens/s | hours | a death")
    for model in MODELS:
        print(f"| {model.name} | {batch(model, given)} |")
    print("convert: | Q4_K_M on disk | one node | W4A16 on disk | one node")
    for model in MODELS:
        print(f"| {model.name} | {convert(model, given)} |")


if __name__ == "__main__":
    main()

"""What passes will take, before they start: seconds and memory, from a moment's measuring.

Work is counted in multiplications of matrices, whose speed on this machine is measured; the factors
of what is not such a product come from timed runs (benchmarks/quality.py). It reads no weights.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

__all__ = ["Estimate", "estimate", "speed"]

SWEEP, COLUMNS = 10, 14  # times rows * columns**2: one sweep of gptq's descent, all before
INVERSES = 4  # times columns**3: the factors of a Hessian, in float64
EFFICIENCY = 0.4  # of the measured speed, that a pass reaches: 28.7 s of gptq on 26M weights
START = 4.0  # seconds until libraries and compiled searches are loaded
TRIALS = 12  # encodings of a matrix while awq or smooth look for a scale


@dataclass(frozen=True)
class Estimate:
    """``seconds`` and ``nbytes`` of memory at the peak, weights that stay mapped not counted."""

    seconds: float
    nbytes: int

    def __str__(self) -> str:
        return f"about {_duration(self.seconds)} and {self.nbytes / 1e9:.1f} GB of memory"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    minutes = seconds / 60
    return f"{round(minutes)} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


@dataclass(frozen=True)
class _Sizes:
    """``matrices``: (rows, columns, in a block) of what is quantized; ``inputs``: their widths."""

    matrices: tuple[tuple[int, int, bool], ...]
    inputs: tuple[int, ...]
    tokens: int
    n_ctx: int
    tied: bool

    @property
    def blocks(self) -> int:
        return sum(r * n for r, n, inside in self.matrices if inside)

    @property
    def weights(self) -> int:
        return sum(r * n for r, n, _ in self.matrices)

    @property
    def widest(self) -> int:
        return max(max(r, n) for r, n, inside in self.matrices if inside)

    def forward(self, weights: int) -> float:
        """Return the operations of all tokens through ``weights``, attention included."""
        return 2.0 * self.tokens * (weights + self.n_ctx * sum(self.inputs) / 4)


def _importance(one: Any, s: _Sizes) -> tuple[float, float]:
    return s.forward(s.weights), 4.0 * (s.weights + 512 * s.widest) + 4 * s.n_ctx * s.matrices[0][0]


def _gptq(one: Any, s: _Sizes) -> tuple[float, float]:
    work = (3 if s.tied else 2) * s.forward(s.blocks)
    work += sum(4.0 * n * n * s.tokens for n in s.inputs)
    work += sum(float(INVERSES) * n**3 for n in s.inputs)
    work += sum((COLUMNS + SWEEP * one.sweeps) * float(r) * n * n for r, n, _ in s.matrices)
    largest = max(r * n for r, n, _ in s.matrices)
    return work, 24.0 * s.tokens * s.widest + 36.0 * largest


def _distill(one: Any, s: _Sizes) -> tuple[float, float]:
    batch = one.batch * s.n_ctx
    looks = 5 * s.tokens / one.held
    work = 4 * s.forward(s.blocks) + 1.3 * (one.steps * 6 * batch + looks * 2) * s.blocks
    work += (one.final * 8 * batch + bool(one.final) * looks * 4) * s.weights
    n_layers = max(1, len(s.inputs) // 4)
    streams = 12.0 * s.tokens * s.widest
    end = min((36.0 if one.codes else 16.0) * s.weights, one.memory * 1e9) if one.final else 0.0
    return work, 6.0 * s.weights + max(streams + 40.0 * s.blocks / n_layers, end)


def _folds(one: Any, s: _Sizes) -> tuple[float, float]:
    work = s.forward(s.blocks) + sum(4.0 * n * n * s.tokens for n in s.inputs)
    return work, 16.0 * s.tokens * s.widest


_COSTS: dict[str, Callable[[Any, _Sizes], tuple[float, float]]] = {
    "imatrix": _importance,
    "gptq": _gptq,
    "distill": _distill,
    "awq": _folds,
    "smooth": _folds,
}


def estimate(job: Any, passes: Sequence[Any], threads: int | None = None) -> Estimate | None:
    """Return what ``passes`` on a conversion and its encoding will take; None where one is unknown.

    The speed of matrix products and of the block search is measured in about a second.
    """
    seconds, nbytes, encodes = START, 0.0, 1.0
    for one in passes:
        cost = _COSTS.get(type(one).__module__.rpartition(".")[2])
        if cost is None:
            return None
        sizes = _sizes(job, one)
        if not sizes.matrices:
            continue
        work, memory = cost(one, sizes)
        seconds += work / (EFFICIENCY * speed())
        nbytes = max(nbytes, memory)
        encodes += TRIALS * (cost is _folds) + (cost is _gptq)
    weights = {kind: 0 for _, kind in job.plan.types}
    for name, kind in job.plan.types:
        weights[kind] += prod(job.tensors[name].shape)
    seconds += encodes * sum(n * _per_weight(kind) for kind, n in weights.items()) / _cores(threads)
    return Estimate(seconds, int(nbytes))


def _cores(threads: int | None) -> int:
    from ggq.converters.encode import default_threads

    return threads or default_threads()


def _sizes(job: Any, one: Any) -> _Sizes:
    """Return the sizes that a pass meets: experts count by the share of tokens they see."""
    from ggq.converters.calibration import hparams_of

    architecture, hp = hparams_of(job)
    matrices, inputs = [], {}
    used = hp.n_expert_used / hp.n_expert if getattr(hp, "n_expert", 0) else 1.0
    for name, row, layer in architecture.rows(hp):
        if name not in job.tensors or len(job.tensors[name].shape) < 2:
            continue
        *_, n = shape = job.tensors[name].shape
        rows = prod(shape[:-1]) if len(shape) == 2 else max(1, int(prod(shape[:-1]) * used))
        inside = layer is not None
        if inside or name in ("output.weight", "token_embd.weight"):
            matrices.append((rows, n, inside))
        if inside:
            inputs[row.input or name, layer] = n
    n_ctx = min(one.n_ctx, hp.n_ctx_train or one.n_ctx)
    tokens = one.tokens or _all_tokens(one)
    tied = "output.weight" not in job.tensors
    return _Sizes(tuple(matrices), tuple(inputs.values()), tokens, n_ctx, tied)


def _all_tokens(one: Any) -> int:
    """Return about how many tokens the whole text of a pass has."""
    from ggq.converters.calibration import BUILT_IN

    with suppress(OSError):
        return os.path.getsize(BUILT_IN if one.calibration is None else one.calibration) // 4
    return 0


@cache
def speed() -> float:
    """Return float operations a second in products of matrices, as the passes multiply."""
    import numpy as np

    try:
        import torch

        a = torch.rand(768, 768)
        product: Callable[[], Any] = lambda: a @ a  # noqa: E731
    except ImportError:
        b = np.ones((768, 768), np.float32)
        product = lambda: b @ b  # noqa: E731
    product()
    return 2.0 * 768**3 / _fastest(product)


@cache
def _per_weight(type_name: str) -> float:
    """Return the seconds that one weight takes to encode on one core."""
    import numpy as np

    from ggq import quants

    kind = quants.get(type_name)
    if kind.block_size == 1:
        return 1e-9
    x = np.random.default_rng(0).normal(size=(16, 1024)).astype(np.float32)
    importance = np.ones(1024, np.float32)
    kind.quantize(x[:1], importance)  # compiled or read from the cache
    return _fastest(lambda: kind.quantize(x, importance)) / x.size


def _fastest(work: Callable[[], Any], times: int = 5) -> float:
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best

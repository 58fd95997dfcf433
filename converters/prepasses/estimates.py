"""What passes will take, before they start: seconds and memory, from a moment's measuring.

Work is counted in multiplications of matrices, whose speed on this machine is measured; the factors
of what is not such a product come from timed runs (benchmarks/quality.py). It reads no weights;
how much work a pass is, its own file says (`Prepass.cost`).
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

import numpy as np

from ggq.converters import grids
from ggq.converters.calibration.text import BUILT_IN
from ggq.converters.calibration.weights import hparams_of
from ggq.converters.conversion import Conversion
from ggq.converters.encode import default_threads
from ggq.converters.prepasses.base import Pass, Prepass
from ggq.converters.prepasses.cost import Sizes
from ggq.quants.mixtures import UNQUANTIZED

__all__ = ["Estimate", "estimate", "speed"]

EFFICIENCY = 0.4  # of the measured speed, that a pass reaches: 28.7 s of gptq on 26M weights
START = 4.0  # seconds until libraries and compiled searches are loaded


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


def estimate(
    job: Conversion, passes: Sequence[Pass], threads: int | None = None
) -> Estimate | None:
    """Return what ``passes`` on a conversion and its encoding will take; None where one is unknown.

    The speed of matrix products and of the block search is measured in about a second.
    """
    seconds, nbytes, encodes = START, 0.0, 1.0
    for one in passes:
        if not isinstance(one, Prepass):
            return None
        sizes = _sizes(job, one)
        if not sizes.matrices:
            continue
        cost = one.cost(sizes)
        if cost is None:
            return None
        seconds += cost.operations / (EFFICIENCY * speed())
        nbytes = max(nbytes, cost.nbytes)
        encodes += cost.encodings
    weights = {kind: 0 for _, kind in job.plan.types}
    for name, kind in job.plan.types:
        weights[kind] += prod(job.tensors[name].shape)
    seconds += encodes * sum(n * _per_weight(kind) for kind, n in weights.items()) / _cores(threads)
    return Estimate(seconds, int(nbytes))


def _cores(threads: int | None) -> int:
    return threads or default_threads()


def _sizes(job: Conversion, one: Prepass) -> Sizes:
    """Return the sizes that a pass meets: experts count by the share of tokens they see."""
    architecture, hp = hparams_of(job)
    matrices: list[tuple[int, int, bool]] = []
    inputs: dict[tuple[str, int | None], int] = {}
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
    return Sizes(tuple(matrices), tuple(inputs.values()), tokens, n_ctx, tied)


def _all_tokens(one: Prepass) -> int:
    """Return about how many tokens the whole text of a pass has."""
    with suppress(OSError):
        return os.path.getsize(BUILT_IN if one.calibration is None else one.calibration) // 4
    return 0


@cache
def speed() -> float:
    """Return float operations a second in products of matrices, as the passes multiply."""
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
    kind = grids.kind(type_name)
    if type_name in UNQUANTIZED:
        return 1e-9
    n = kind.block_size * max(1, 1024 // kind.block_size)
    x = np.random.default_rng(0).normal(size=(16, n)).astype(np.float32)
    importance = np.ones(n, np.float32)
    kind.quantize(x[:1], importance)  # compiled or read from the cache
    return _fastest(lambda: kind.quantize(x, importance)) / x.size


def _fastest(work: Callable[[], Any], times: int = 5) -> float:
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best

"""Timing a model as llama-bench does: evaluation only, after a warm-up. It prints nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ggq.runtime.cache.layout import STEP_TOKENS
from ggq.runtime.model import Model

__all__ = ["Result", "kernels_in_use", "measure", "profile", "weight_bytes_per_token"]


@dataclass
class Result:
    """One row: ``n_prompt`` tokens evaluated or ``n_gen`` decoded after ``n_depth`` others."""

    n_prompt: int
    n_gen: int
    n_depth: int
    samples_ns: list[int] = field(default_factory=list)

    @property
    def test(self) -> str:
        """llama-bench's name of the row, such as pp512 or tg128 @ d4096."""
        name = f"pp{self.n_prompt}" if self.n_prompt else f"tg{self.n_gen}"
        return f"{name} @ d{self.n_depth}" if self.n_depth else name

    @property
    def samples_ts(self) -> list[float]:
        """Tokens per second of each repetition."""
        return [1e9 * (self.n_prompt + self.n_gen) / ns for ns in self.samples_ns]

    @property
    def avg_ts(self) -> float:
        """Mean of the repetitions in tokens per second."""
        return statistics.fmean(self.samples_ts)

    @property
    def stddev_ts(self) -> float:
        """Standard deviation of the repetitions, 0 for a single one."""
        return statistics.stdev(self.samples_ts) if len(self.samples_ns) > 1 else 0.0


def weight_bytes_per_token(model: Model) -> int:
    """Return the bytes of weights that decoding a token reads: not the embedding's other rows.

    Expert layers count the experts that a token chooses.
    """
    total = 0
    hp = model.hparams
    tied = "output.weight" not in model.gguf.tensors
    for name, tensor in model.gguf.tensors.items():
        if name == "token_embd.weight" and not tied:
            total += tensor.nbytes // max(1, tensor.shape[0])
        elif "_exps." in name and hp.n_expert:
            total += tensor.nbytes * hp.n_expert_used // hp.n_expert
        else:
            total += tensor.nbytes
    return total


def kernels_in_use(model: Model) -> list[tuple[str, int, str]]:
    """Return (block type, bytes of weights, instruction set) of every type that is multiplied."""
    from ggq.jit import ISA
    from ggq.quants import by_id

    sizes: dict[str, int] = {}
    for tensor in model.gguf.tensors.values():
        if len(tensor.shape) > 1:
            kind = by_id(tensor.type_id)
            kind.matmul()
            sizes[kind.name] = sizes.get(kind.name, 0) + tensor.nbytes
    return [(name, size, ISA) for name, size in sizes.items()]


def measure(
    model: Model,
    *,
    n_prompt: int,
    n_gen: int,
    depths: tuple[int, ...] = (0,),
    repeats: int = 5,
    progress: Callable[[int, int, str], None] | None = None,
) -> Iterator[Result]:
    """Yield a row for the prompt and one for decoding at each depth.

    ``progress`` is told (repetitions done, in all, the row) between two of them.
    """
    ids = np.random.default_rng(0).integers(0, model.hparams.n_vocab, max(n_prompt, 1))
    rows = [r for d in depths for r in (Result(n_prompt, 0, d), Result(0, n_gen, d))]
    rows = [row for row in rows if row.n_prompt or row.n_gen]
    for number, row in enumerate(rows):
        for done in _repeat(model.engine, row, ids, repeats):
            if progress:
                progress(number * repeats + done, len(rows) * repeats, row.test)
        yield row


def _repeat(engine: Any, result: Result, ids: np.ndarray, repeats: int) -> Iterator[int]:
    """Fill in the row's samples; yield their number after each."""
    filler = np.random.default_rng(1).integers(0, engine.hp.n_vocab, max(result.n_depth, 1))
    for number in range(repeats + 1):  # the first one warms up and is not counted
        sequence = engine.sequence()
        try:
            if result.n_depth:
                engine.evaluate(sequence, filler)
            start = time.perf_counter_ns()
            if result.n_prompt:
                engine.evaluate(sequence, ids)
            for i in range(result.n_gen if number else min(4, result.n_gen)):
                engine.evaluate(sequence, ids[i % len(ids) :][:1])
            elapsed = time.perf_counter_ns() - start
        finally:
            sequence.free()
        if number:
            result.samples_ns.append(elapsed)
        yield number


def profile(model: Model, depth: int = 0, steps: int = 16) -> dict[str, float]:
    """Return a decoded token's microseconds per kind of operation, waiting for threads included.

    The threads' own timestamps, after ``depth`` other tokens; a mean over ``steps`` tokens.
    """
    engine = model.engine
    spent: dict[str, int] = {}
    sequence = engine.sequence()
    try:
        if depth:
            engine.evaluate(sequence, np.arange(depth) % engine.hp.n_vocab)
        for number in range(2 + steps):  # two to warm up
            engine.backend.profile = spent if number > 1 else None
            engine.evaluate(sequence, [number % engine.hp.n_vocab])
    finally:
        engine.backend.profile = None
        sequence.free()
    return {kind: ns / 1000 / steps for kind, ns in spent.items()}


def context_needed(n_prompt: int, n_gen: int, depths: tuple[int, ...]) -> int:
    """Return the positions that the rows need."""
    return max(depths) + max(n_prompt, n_gen, STEP_TOKENS)

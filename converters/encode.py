"""Turns tensors into blocks slab by slab on all cores, in file order, with bounded memory.

Reading, encoding and writing overlap: workers read and encode the next slabs while finished ones
are written. It knows no architecture, no mixture and no GGUF keys.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod

import numpy as np

from ggq.converters import grids
from ggq.converters.checkpoint.tensors import SourceTensor
from ggq.converters.imatrix import Imatrix
from ggq.errors import FormatError, UsageError, option, printable
from ggq.quants.mixtures import UNQUANTIZED

__all__ = ["F16_MAX", "EncodeTask", "default_threads", "encode_all"]

SLAB_ELEMENTS = 2 << 20  # 8 MB of float32 per slab: large enough for SIMD, small enough to bound
F16_MAX = 65504.0


@dataclass(frozen=True)
class EncodeTask:
    """One tensor and the type it gets; ``via_f16``: rounded to F16 before."""

    tensor: SourceTensor
    type_name: str
    via_f16: bool = False


@dataclass(frozen=True)
class Slab:
    task: EncodeTask
    start: int
    stop: int
    part: int


def default_threads() -> int:
    """Return the number of cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def encode_all(
    tasks: list[EncodeTask],
    write: Callable[[str, np.ndarray], None],
    imatrix: Imatrix | None = None,
    threads: int | None = None,
    advance: Callable[[str, int], None] = lambda name, elements: None,
) -> None:
    """Encode every task and call ``write(name, rows)`` in order; ``advance`` counts elements done.

    Errors name the tensor: NaN or Inf, beyond F16, an importance that does not fit.
    """
    threads = threads or default_threads()
    _check_types(tasks, imatrix)
    pending: deque[tuple[Slab, Future[np.ndarray]]] = deque()

    def drain() -> None:
        slab, future = pending.popleft()
        write(slab.task.tensor.name, future.result())
        advance(slab.task.tensor.name, (slab.stop - slab.start) * slab.task.tensor.shape[-1])

    with ThreadPoolExecutor(threads, thread_name_prefix="ggq-encode") as pool:
        try:
            for slab in (s for task in tasks for s in _slabs(task)):
                pending.append((slab, pool.submit(_encode, slab, imatrix)))
                if len(pending) > 2 * threads:
                    drain()
            while pending:
                drain()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _check_types(tasks: list[EncodeTask], imatrix: Imatrix | None) -> None:
    """Refuse types that cannot be written before any work: each encodes one block of zeros."""
    measured = imatrix.values if imatrix else {}
    new = [j for j in tasks if j.type_name != j.tensor.type_name]
    for task in new:
        if grids.kind(task.type_name).needs_importance and task.tensor.name not in measured:
            what = f"{printable(task.tensor.name)} cannot be written in {task.type_name}"
            raise UsageError(f"{what} without importance ({option('--imatrix')})")
    for name in sorted({j.type_name for j in new}):
        kind = grids.kind(name)
        kind.quantize(np.zeros((1, kind.block_size), np.float32), np.ones(kind.block_size, "f4"))


def _slabs(task: EncodeTask) -> Iterator[Slab]:
    """Yield slabs of whole rows that stay within one expert."""
    shape = task.tensor.shape
    n_parts = prod(shape[:-2])
    per_part = shape[-2] if len(shape) > 1 else 1
    step = max(1, SLAB_ELEMENTS // shape[-1])
    for part in range(n_parts):
        for first in range(0, per_part, step):
            start = part * per_part + first
            yield Slab(task, start, part * per_part + min(first + step, per_part), part)


def _encode(slab: Slab, imatrix: Imatrix | None) -> np.ndarray:
    """Return the slab's blocks, uint8 (rows, bytes)."""
    task, tensor = slab.task, slab.task.tensor
    if tensor.type_name == task.type_name:
        stored = tensor.raw(slab.start, slab.stop)
        if stored is not None:
            return stored
    x = np.ascontiguousarray(tensor.read(slab.start, slab.stop), np.float32)
    peak = _peak(x, tensor.name)
    if task.via_f16 or task.type_name == "F16":
        _check_f16(peak, tensor.name)
    if task.via_f16:
        x = x.astype(np.float16).astype(np.float32)
    kind = grids.kind(task.type_name)
    importance = _importance(imatrix, slab) if task.type_name not in UNQUANTIZED else None
    blocks = kind.quantize(x, importance)
    if (
        peak > F16_MAX
        and task.type_name not in UNQUANTIZED
        and not np.isfinite(kind.dequantize(blocks)).all()
    ):
        raise FormatError(
            f"tensor {printable(tensor.name)}: {peak:g} is too large for the scales of {kind.name}"
        )
    return blocks.view(np.uint8)


def _importance(imatrix: Imatrix | None, slab: Slab) -> np.ndarray | None:
    if imatrix is None:
        return None
    return imatrix.slice_for(slab.task.tensor.name, slab.task.tensor.shape, slab.part)


def _peak(x: np.ndarray, name: str) -> float:
    """Return the largest magnitude; FormatError where a value is NaN or Inf."""
    peak = max(abs(float(x.max())), abs(float(x.min())))  # NaN and Inf survive min and max
    if not np.isfinite(peak) or peak != peak:
        raise FormatError(f"tensor {printable(name)} holds NaN or Inf")
    return peak


def _check_f16(peak: float, name: str) -> None:
    if peak > F16_MAX:
        raise UsageError(f"tensor {printable(name)}: {peak:g} is beyond F16's {F16_MAX:g}")

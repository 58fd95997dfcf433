"""Measures importance: sums of squared inputs per linear, over llama.cpp's windows.

Any back end whose ``linear`` can be overheard will do: torch where it is installed, else numpy. It
knows conversions; the files it fills are `ggq.converters.imatrix`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from ggq.converters.calibration.text import Calibration
from ggq.converters.calibration.weights import SourceWeights, hparams_of
from ggq.converters.imatrix import Imatrix
from ggq.errors import ModelError, printable
from ggq.runtime.ops.experts import expert_of

__all__ = ["Sums", "collect"]

Progress = Callable[[int, int, str], None]
HEADS = ("output.weight", "token_embd.weight")


class Sums:
    """Running sums by tensor name: squares float32 (n_experts, n_columns), counts (n_experts,)."""

    def __init__(self) -> None:
        self.squares: dict[str, np.ndarray] = {}
        self.counts: dict[str, np.ndarray] = {}

    def add(
        self, name: str, squares: np.ndarray, n_rows: int, expert: int = 0, n_expert: int = 1
    ) -> None:
        """Add the column sums of squares of ``n_rows`` inputs; ModelError where not finite."""
        if not np.isfinite(squares).all():
            raise ModelError(f"the inputs of {printable(name)} are not finite")
        if name not in self.squares:
            self.squares[name] = np.zeros((n_expert, len(squares)))
            self.counts[name] = np.zeros(n_expert)
        self.squares[name][expert] += squares
        if self.squares[name][expert].max() > np.finfo(np.float32).max:
            raise ModelError(f"the inputs of {printable(name)} are too large: squares beyond F32")
        self.counts[name][expert] += n_rows

    def imatrix(self, dataset: str = "", chunks: int = 0) -> Imatrix:
        """Return the mean squares, as llama-quantize would read them from a file."""
        values = {}
        for name, squares in self.squares.items():
            counts = self.counts[name].astype(np.float32)[:, None]
            table = squares.astype(np.float32)
            mean = np.where(counts > 0, table / np.maximum(counts, 1), 1)
            values[name] = mean.ravel().astype(np.float32)
        return Imatrix(values, "", dataset, chunks)


def collect(
    job: Any,
    calibration: Calibration,
    head: bool = False,
    backend: str | None = None,
    progress: Progress | None = None,
) -> Sums:
    """Run every window through ``job``'s model in float32 or better; return the sums.

    ``head`` measures the output matrix (or the tied embedding) as the head sees its input, too.
    Experts that no token reaches are told in the job's warnings.
    ``backend``: "torch", "reference" or None for what is installed.
    """
    architecture, hp = hparams_of(job)
    sums = Sums()

    def listen(name: str, x: Any) -> None:
        weight, expert = expert_of(name)
        if head or weight not in HEADS:
            n_expert = 1 if expert is None else job.tensors[weight].shape[0]
            squares = np.square(np.asarray(x, np.float64)).sum(0)
            sums.add(weight, squares, len(x), expert or 0, n_expert)

    ops = _back_end(backend, SourceWeights(job.tensors))
    ops.on_linear_input(listen)
    ops.unread = frozenset(HEADS)
    for done, ids in enumerate(calibration.windows):
        ops.reset()
        ops.step(lambda o: architecture.forward(o, hp), ids)
        if progress:
            progress(done + 1, len(calibration.windows), "importance")
    if missed := [(n, e) for n, c in sums.counts.items() for e in np.flatnonzero(c == 0)]:
        name, expert = missed[0]
        what = (
            f"no token of {printable(calibration.dataset)} reaches {len(missed)} experts' matrices"
        )
        such = f"such as number {expert} of {printable(name)}: all their columns weigh the same"
        job.warnings.append(f"{what}, {such}")
    return sums


def _wants_torch(backend: str | None) -> bool:
    return find_spec("torch") is not None if backend is None else backend == "torch"


def _back_end(backend: str | None, weights: Any) -> Any:
    if _wants_torch(backend):
        from ggq.runtime.backends.torch.backend import TorchOps

        return TorchOps(weights)
    from ggq.runtime.backends.reference import ReferenceOps

    return ReferenceOps(weights)

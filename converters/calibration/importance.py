"""Measures importance: sums of squared inputs per linear, over llama.cpp's windows.

Any back end whose ``linear`` can be overheard will do: torch where it is installed, else numpy. It
knows conversions; the files it fills are `ggq.converters.imatrix`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from ggq.converters.calibration.text import Calibration
from ggq.converters.calibration.weights import SourceWeights, hparams_of
from ggq.converters.imatrix import Imatrix
from ggq.errors import ModelError, printable
from ggq.runtime.ops.experts import expert_of

__all__ = ["Heard", "Hearing", "Kept", "Sums", "collect", "wants_torch"]

Progress = Callable[[int, int, str], None]
HEADS = ("output.weight", "token_embd.weight")
# Of one window, by tensor and expert: column sums of squares float64, rows, experts of the tensor.
Heard = dict[tuple[str, int], tuple[np.ndarray, int, int]]
Measure = Callable[[Any, np.ndarray, bool, "str | None"], Iterable[Heard]]
KEEP_EVERY = 20.0  # seconds of work that a killed run loses at most, and a window
_SHARE = 20  # times as long as keeping the sums took is worked until they are kept again


class Kept(Protocol):
    """Where sums outlive the run, as `ggq.converters.prepasses.resume.Store` does it."""

    def recall(self, name: str) -> dict[str, np.ndarray]:
        """Return what was kept last, {} if nothing."""

    def keep(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep arrays, whole or not at all."""


class Sums:
    """Running sums by tensor name: squares float64 (n_experts, n_columns), counts (n_experts,)."""

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

    def arrays(self, done: int) -> dict[str, np.ndarray]:
        """Return these sums, of the first ``done`` windows, for `restored`."""
        squares = {f"squares {name}": one for name, one in self.squares.items()}
        counts = {f"counts {name}": one for name, one in self.counts.items()}
        return {"done": np.array(done), **squares, **counts}

    def restored(self, arrays: dict[str, np.ndarray]) -> int:
        """Take sums that were kept; return of how many windows they are."""
        for key, one in arrays.items():
            kind, _, name = key.partition(" ")
            if kind != "done":
                (self.squares if kind == "squares" else self.counts)[name] = one
        return int(arrays.get("done", 0))

    def imatrix(self, dataset: str = "", chunks: int = 0) -> Imatrix:
        """Return the mean squares, as llama-quantize would read them from a file."""
        values = {}
        for name, squares in self.squares.items():
            counts = self.counts[name].astype(np.float32)[:, None]
            table = squares.astype(np.float32)
            mean = np.where(counts > 0, table / np.maximum(counts, 1), 1)
            values[name] = mean.ravel().astype(np.float32)
        return Imatrix(values, "", dataset, chunks)


class Hearing:
    """A conversion's model, run window by window in float32 or better, overheard at its matrices.

    ``head``, ``backend``: as `collect` has them.
    """

    def __init__(self, job: Any, head: bool = False, backend: str | None = None) -> None:
        self._job, self._head = job, head
        self._architecture, self._hp = hparams_of(job)
        self._ops = _back_end(backend, SourceWeights(job.tensors))
        self._ops.on_linear_input(self._listen)
        self._ops.unread = frozenset(HEADS)
        self._heard: Heard = {}

    def window(self, ids: np.ndarray) -> Heard:
        """Return what one window of tokens sends in: the same whoever runs it, whatever before."""
        self._heard = {}
        self._ops.reset()
        self._ops.step(lambda ops: self._architecture.forward(ops, self._hp), ids)
        return self._heard

    def _listen(self, name: str, x: Any) -> None:
        weight, expert = expert_of(name)
        if weight in HEADS and not self._head:
            return
        squares, n = np.square(np.asarray(x, np.float64)).sum(0), len(x)
        key = weight, expert or 0
        if key in self._heard:
            squares, n = self._heard[key][0] + squares, self._heard[key][1] + n
        of = 1 if expert is None else self._job.tensors[weight].shape[0]
        self._heard[key] = squares, n, of


def collect(
    job: Any,
    calibration: Calibration,
    head: bool = False,
    backend: str | None = None,
    progress: Progress | None = None,
    measure: Measure | None = None,
    kept: Kept | None = None,
) -> Sums:
    """Run every window through ``job``'s model; return the sums.

    ``head`` measures the output matrix (or the tied embedding) as the head sees its input, too.
    Experts that no token reaches are told in the job's warnings.
    ``backend``: "torch", "reference" or None for what is installed. ``measure(job, windows, head,
    backend)`` gives what `Hearing` would of each, in their order, from elsewhere: float64 sums are
    added window by window, so that they are the same in every bit. So they are where a killed run
    goes on: ``kept`` gets the sums of the windows so far every `KEEP_EVERY` seconds, and gives them
    back; it belongs to this model, text, ``head`` and ``backend``.
    """
    sums, windows = Sums(), calibration.windows
    before = sums.restored(kept.recall("importance")) if kept else 0
    if measure is None:
        heard: Iterable[Heard] = map(Hearing(job, head, backend).window, windows[before:])
    else:
        heard = measure(job, windows[before:], head, backend)
    due = time.monotonic() + KEEP_EVERY
    for done, one in enumerate(heard, before + 1):
        for (name, expert), (squares, n_rows, n_expert) in one.items():
            sums.add(name, squares, n_rows, expert, n_expert)
        if progress:
            progress(done, len(windows), "importance")
        if kept and (begun := time.monotonic()) >= due:
            kept.keep("importance", sums.arrays(done))
            took = time.monotonic() - begun
            due = begun + took + max(KEEP_EVERY, _SHARE * took)
    if missed := [(n, e) for n, c in sums.counts.items() for e in np.flatnonzero(c == 0)]:
        least, number = missed[0]
        what = (
            f"no token of {printable(calibration.dataset)} reaches {len(missed)} experts' matrices"
        )
        such = f"such as number {number} of {printable(least)}: all their columns weigh the same"
        job.warnings.append(f"{what}, {such}")
    return sums


def wants_torch(backend: str | None) -> bool:
    """Tell whether torch runs it: where it is asked for, or installed and nothing is."""
    return find_spec("torch") is not None if backend is None else backend == "torch"


def _back_end(backend: str | None, weights: Any) -> Any:
    if wants_torch(backend):
        from ggq.runtime.backends.torch.backend import TorchOps

        return TorchOps(weights)
    from ggq.runtime.backends.reference import ReferenceOps

    return ReferenceOps(weights)

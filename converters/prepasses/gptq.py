"""Chooses codes and scales with error feedback, block after block, on what the student really sees.

Column loop (GPTQ, arXiv 2210.17323) on the block type's own grid with importance-fitted scales,
towards the teacher's outputs and residual stream, then descent over codes and scales. The maths of
blocks is `solver.py`'s and the types'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ggq.converters.prepasses.base import Packed, Prepass
from ggq.errors import UsageError

__all__ = ["GPTQ"]

MIN_TOKENS = 1024


@dataclass
class GPTQ(Prepass):
    """``strength`` of the teacher's outputs as target (0: plain GPTQ), ``residual`` of its stream.

    ``damp`` and ``ridge`` are shares of the mean input power; ``sweeps`` of scales and codes follow
    the column loop; ``head`` treats the embedding or output matrix, too.
    """

    strength: float = 0.7
    residual: float = 0.7
    damp: float = 0.05
    ridge: float = 0.05
    sweeps: int = 6
    head: bool = True
    threads: int = 0

    def __call__(self, job: Any) -> None:
        """Replace every quantized matrix of ``job`` by finished blocks."""
        from ggq.converters.calibration import SourceWeights, hparams_of
        from ggq.converters.prepasses.base import require_torch

        torch = require_torch("gptq")
        from ggq.converters.prepasses.streams import StreamOps

        calibration = self.windows(job)
        if calibration.n_tokens < MIN_TOKENS:
            raise UsageError(
                f"{calibration.dataset}: {calibration.n_tokens} tokens are too few to calibrate "
                f"gptq, it needs {MIN_TOKENS}"
            )
        architecture, hp = hparams_of(job)
        weights = SourceWeights(job.tensors)
        run = _Run(self, job, weights, calibration)
        with torch.inference_mode():
            if run.is_tied:
                survey = StreamOps(
                    weights, calibration.windows, run.survey, lambda name: None, teacher_only=True
                )
                architecture.forward(survey, hp)
            ops = StreamOps(weights, calibration.windows, run.choose, run.embedding)
            architecture.forward(ops, hp)
        job.tensors = {**job.tensors, **run.packed}
        self.note(job, "gptq", calibration.dataset)
        run.store.remove()


class _Run:
    """The state of one pass over one model."""

    def __init__(self, options: GPTQ, job: Any, weights: Any, calibration: Any):
        from ggq import quants
        from ggq.converters.prepasses.resume import Store

        facts = {k: v for k, v in vars(options).items() if k not in ("progress", "threads")}
        self.store = Store(job, facts, calibration.windows.tobytes())

        self.options, self.weights = options, weights
        self.types = {
            name: kind
            for name, kind in job.plan.types
            if hasattr(quants.get(kind), "grid") and len(job.tensors[name].shape) in (2, 3)
        }
        self.is_tied = "output.weight" not in job.tensors and options.head
        self.head_moments: np.ndarray | None = None
        self.packed: dict[str, Packed] = {}
        self.errors: dict[str, tuple[float, float]] = {}

    def survey(self, name: str, x: Any, *_: Any) -> None:
        """Keep the second moments of a tied head's input."""
        from ggq.converters.prepasses.streams import Moments

        if not name.startswith("blk."):
            self.head_moments = Moments(x, name).student

    def embedding(self, name: str) -> Any:
        """Solve the embedding for the head that shares it, or evenly; return the new table."""
        import torch

        if name not in self.types or not self.options.head:
            return None
        w = self.weights[name].dequantized()
        moments = self.head_moments
        hessian = np.eye(w.shape[1]) if moments is None else moments
        return torch.from_numpy(self._solve(name, w, hessian))

    def choose(self, name: str, x: Any, residual: Any, factor: float, rows: Any = None) -> Any:
        """Return the student's weight for one linear, or for all experts of one."""
        import torch

        from ggq.converters.prepasses.streams import Moments

        if name not in self.types or name in self.packed:
            return None
        if name == "output.weight" and not self.options.head:
            return None
        if x.moments is None:
            x.moments = Moments(x, name)
        w = self.weights[name].dequantized()
        if rows is not None:
            return torch.from_numpy(self._experts(name, w, x.moments, rows))
        target = self._target(name, w, x, x.moments, residual, factor)
        return torch.from_numpy(self._solve(name, target, x.moments.student))

    def _experts(self, name: str, w: np.ndarray, shared: Any, rows: Any) -> np.ndarray:
        """Solve each expert on its own rows; one that few reach leans on the rows of all."""
        from ggq.converters.prepasses.streams import Moments

        parts = []
        for e, one in enumerate(w):
            x = rows(e)
            n = sum(len(part) for part in x.student)
            moments = shared
            if n:
                moments = Moments(x, f"{name}[{e}]")
                share = n / (n + one.shape[1])
                moments.student = share * moments.student + (1 - share) * shared.student
                moments.cross = share * moments.cross + (1 - share) * shared.cross
            target = self._target(name, one, x, moments, None, 1.0)
            parts.append(self._blocks(name, target, moments.student))
        blocks = np.concatenate([p.blocks for p in parts])
        self._keep(name, w.shape, blocks, parts)
        return np.stack([p.values for p in parts])

    def _target(self, name, w, x, moments, residual, factor) -> np.ndarray:
        """Return the weights that would bring the student's outputs to the teacher's."""
        from ggq.converters.prepasses.solver import regress

        options = self.options
        missing = options.strength * (w.astype(np.float64) @ (moments.cross - moments.student))
        if residual is not None and options.residual:
            missing += options.residual * moments.against(x, residual, factor)
        return regress(w, moments.student, missing, name, options.ridge)

    def _blocks(self, name: str, target: np.ndarray, hessian: np.ndarray) -> Any:
        from ggq import quants
        from ggq.converters.prepasses.solver import Solver

        options = self.options
        kind = quants.get(self.types[name])
        solver = Solver(kind, options.sweeps, options.damp, options.threads or None)
        return solver.solve(target, hessian, name)

    def _solve(self, name: str, target: np.ndarray, hessian: np.ndarray) -> np.ndarray:
        from ggq import quants

        kind = quants.get(self.types[name])
        kept = self.store.load(name, (target.shape[0], kind.row_bytes(target.shape[1])))
        if kept is not None:
            self._keep(name, target.shape, kept, [])
            return kind.dequantize(kept)
        found = self._blocks(name, target, hessian)
        self.store.save(name, found.blocks)
        self._keep(name, target.shape, found.blocks, [found])
        return found.values

    def _keep(self, name: str, shape: tuple[int, ...], blocks: np.ndarray, parts: list) -> None:
        self.packed[name] = Packed(name, shape, self.types[name], blocks)
        self.errors[name] = sum(p.plain_error for p in parts), sum(p.error for p in parts)
        if self.options.progress:
            self.options.progress(len(self.packed), len(self.types), name)


PREPASS = GPTQ

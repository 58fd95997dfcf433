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
        run = _Run(self, job, weights)
        with torch.inference_mode():
            if run.is_tied:
                survey = StreamOps(
                    weights, calibration.windows, run.survey, lambda name: None, teacher_only=True
                )
                architecture.forward(survey, hp)
            ops = StreamOps(weights, calibration.windows, run.choose, run.embedding)
            architecture.forward(ops, hp)
        job.tensors = {**job.tensors, **run.packed}


class _Run:
    """The state of one pass over one model."""

    def __init__(self, options: GPTQ, job: Any, weights: Any):
        from ggq import quants

        self.options, self.weights = options, weights
        self.types = {
            name: kind
            for name, kind in job.plan.types
            if hasattr(quants.get(kind), "grid") and len(job.tensors[name].shape) == 2
        }
        self.is_tied = "output.weight" not in job.tensors and options.head
        self.head_moments: np.ndarray | None = None
        self.packed: dict[str, Packed] = {}
        self.errors: dict[str, tuple[float, float]] = {}

    def survey(self, name: str, x: Any, residual: Any, factor: float) -> None:
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

    def choose(self, name: str, x: Any, residual: Any, factor: float) -> Any:
        """Return the student's weight for one linear."""
        import torch

        from ggq.converters.prepasses.streams import Moments

        if name not in self.types or name in self.packed:
            return None
        if name == "output.weight" and not self.options.head:
            return None
        if x.moments is None:
            x.moments = Moments(x, name)
        moments, options = x.moments, self.options
        w = self.weights[name].dequantized()
        missing = options.strength * (w.astype(np.float64) @ (moments.cross - moments.student))
        if residual is not None and options.residual:
            missing += options.residual * moments.against(x, residual, factor)
        from ggq.converters.prepasses.solver import regress

        target = regress(w, moments.student, missing, name, options.ridge)
        return torch.from_numpy(self._solve(name, target, moments.student))

    def _solve(self, name: str, target: np.ndarray, hessian: np.ndarray) -> np.ndarray:
        from ggq import quants
        from ggq.converters.prepasses.solver import Solver

        options, kind = self.options, self.types[name]
        solver = Solver(quants.get(kind), options.sweeps, options.damp, options.threads or None)
        solution = solver.solve(target, hessian, name)
        self.packed[name] = Packed(name, target.shape, kind, solution.blocks)
        self.errors[name] = (solution.plain_error, solution.error)
        if options.progress:
            options.progress(len(self.packed), len(self.types), name)
        return solution.values


PREPASS = GPTQ

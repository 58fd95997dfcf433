"""Chooses codes and scales with error feedback, block after block, on what the student really sees.

Column loop (GPTQ, arXiv 2210.17323) on the block type's own grid with importance-fitted scales,
towards the teacher's outputs and residual stream, then descent over codes and scales. The maths of
blocks is `solving/solver.py`'s and the types'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ggq.converters import grids
from ggq.converters.conversion import Conversion
from ggq.converters.prepasses.base import Packed, Prepass, has_blocks
from ggq.converters.prepasses.cost import Cost, Sizes
from ggq.converters.prepasses.solving.hessian import Hessian
from ggq.errors import UsageError, printable
from ggq.quants.mixtures import UNQUANTIZED

if TYPE_CHECKING:  # these import torch and numba
    from ggq.converters.prepasses.solving.problems import Problem
    from ggq.converters.prepasses.solving.solver import Solution
    from ggq.converters.prepasses.solving.streams import Moments, Pair

__all__ = ["GPTQ"]

MIN_TOKENS = 1024
SWEEP, COLUMNS = 10, 14  # times rows * columns**2: one sweep of the descent, all before it
GROUP = 1024  # rows at most whose errors are spread over each other
ENOUGH = 8  # tokens a column for the second moments of a tied head's inputs
INVERSES = 4  # times columns**3: the factors of a Hessian


@dataclass
class GPTQ(Prepass):
    """``strength`` of the teacher's outputs as target (0: plain GPTQ), ``residual`` of its stream.

    ``damp`` and ``ridge`` are shares of the mean input power; ``head`` treats the embedding or
    output matrix, too. ``sweeps`` of scales and codes may follow the column loop: they lower the
    error on the calibration text, not on others (docs/quality.md). ``curvature``: on how many of
    the tokens to measure how the loss bends with the outputs (0: not at all); errors of rows are
    then spread over other rows, too, ``row_damp`` of the mean bend added to every row's.
    ``solve``: who solves the matrices' `Problem`s; None: this process, with ``threads``.
    """

    NEEDS: ClassVar[tuple[str, ...]] = ("torch",)
    MEASURES: ClassVar[bool] = True
    RANGES: ClassVar[dict[str, tuple[float, float]]] = {"strength": (0, 1), "residual": (0, 1)}

    strength: float = 0.7
    residual: float = 0.7
    damp: float = 0.2
    ridge: float = 0.05
    sweeps: int = 0
    head: bool = True
    curvature: int = 0
    row_damp: float = 0.3
    threads: int = 0
    solve: Any = field(default=None, init=False, repr=False, compare=False)

    def matters(self, job: Conversion) -> bool:
        """Return whether there are blocks to choose."""
        return has_blocks(job)

    def cost(self, sizes: Sizes) -> Cost:
        """Forwards of teacher and student, second moments, their factors, the column loop."""
        surveyed = min(1.0, ENOUGH * min(sizes.inputs) / sizes.tokens) if sizes.tied else 0.0
        work = (2 + surveyed) * sizes.forward(sizes.blocks) + sizes.gram + sizes.shifts
        work += sum(float(INVERSES) * n**3 for n in sizes.inputs)
        loops = COLUMNS + SWEEP * self.sweeps
        work += sum(loops * float(r) * n * n for r, n, _ in sizes.matrices)
        largest = max(r * n for r, n, _ in sizes.matrices)
        held = 24.0 * sizes.tokens * sizes.widest + 36.0 * largest
        if self.curvature:
            more = sizes.bend(min(self.curvature, sizes.tokens), GROUP)
            work, held = work + more.operations, held + more.nbytes
        return Cost(work, held, encodings=1)

    def __call__(self, job: Conversion) -> None:
        """Replace every quantized matrix of ``job`` by finished blocks."""
        import torch

        from ggq.converters.calibration.text import sample
        from ggq.converters.calibration.weights import SourceWeights, hparams_of
        from ggq.converters.prepasses.solving.streams import StreamOps

        calibration = self.windows(job)
        if calibration.n_tokens < MIN_TOKENS:
            raise UsageError(
                f"{calibration.dataset}: {calibration.n_tokens} tokens are too few to calibrate "
                f"gptq, it needs {MIN_TOKENS}"
            )
        architecture, hp = hparams_of(job)
        weights = SourceWeights(job.tensors)
        run = _Run(self, job, weights, calibration)
        heads = {name for name, _, _ in architecture.rows(hp)} & {"output.weight"}
        if heads:  # an encoder predicts nothing
            run.bend(architecture, hp, calibration.windows)
        with torch.inference_mode():
            if run.is_tied and heads and run.head is None:
                n = -(-ENOUGH * hp.n_embd // calibration.windows.shape[1])
                some = sample(calibration.windows, n)
                survey = StreamOps(weights, some, run.survey, lambda name: None, teacher_only=True)
                survey.run(architecture, hp)
            ops = StreamOps(weights, calibration.windows, run.choose, run.embedding)
            ops.run(architecture, hp)
        job.tensors = {**job.tensors, **run.packed}
        run.tell(job)
        self.note(job, calibration.dataset)
        job.on_written.append(run.store.remove)  # later passes or the writer may be killed


class _Run:
    """The state of one pass over one model."""

    def __init__(self, options: GPTQ, job: Any, weights: Any, calibration: Any):
        from ggq.converters.prepasses.resume import Store

        facts = {
            k: v for k, v in vars(options).items() if k not in ("progress", "threads", "solve")
        }
        self.store = Store(job, facts, calibration.windows.tobytes())

        self.options, self.weights = options, weights
        self.types = {
            n: t
            for n, t in job.plan.types
            if len(job.tensors[n].shape) in (2, 3) and t not in UNQUANTIZED
        }
        solves = options.head and "token_embd.weight" in self.types
        self.is_tied = solves and "output.weight" not in job.tensors
        self.head: Hessian | None = None  # of a tied head's inputs
        self.curvature: dict[str, Any] = {}
        self.packed: dict[str, Packed] = {}
        self.errors: dict[str, tuple[float, float]] = {}
        self.unreached: dict[str, list[int]] = {}  # experts that no token was sent to

    def bend(self, architecture: Any, hp: Any, windows: np.ndarray) -> None:
        """Measure how the loss bends with every output, on some of the windows."""
        from ggq.converters.calibration.text import sample
        from ggq.converters.prepasses.solving.curvature import row_curvature

        n = -(-self.options.curvature // windows.shape[1])
        if n:
            some = sample(windows, n)
            found, self.head = row_curvature(self.weights, architecture, hp, some, GROUP)
            self.curvature = {name: rows for name, rows in found.items() if name in self.types}

    def survey(self, name: str, x: Any, *_: Any) -> None:
        """Keep the second moments of a tied head's input."""
        from ggq.converters.prepasses.solving.streams import Moments

        if not name.startswith("blk."):
            self.head = Moments(x, name).hessian

    def embedding(self, name: str) -> Any:
        """Solve the embedding for the head that shares it, or evenly; return the new table."""
        import torch

        if name not in self.types or not self.options.head or name != "token_embd.weight":
            self.types.pop(name, None)  # tables of single layers: large, and each row for itself
            return None
        w = self.weights[name].dequantized()
        hessian = Hessian(np.eye(w.shape[1]), name) if self.head is None else self.head
        return torch.from_numpy(self._solve(name, w, hessian))

    def choose(self, name: str, x: Any, residual: Any, factor: float, rows: Any = None) -> Any:
        """Return the student's weight for one linear, or for all experts of one."""
        import torch

        from ggq.converters.prepasses.solving.streams import Moments

        if name not in self.types or name in self.packed:
            return None
        if name == "output.weight" and not self.options.head:
            return None
        w = self.weights[name].dequantized()
        if rows is not None:
            return torch.from_numpy(self._experts(name, w, x, rows))
        if x.moments is None:
            x.moments = Moments(x, name)
        if not x.moments.hessian.matrix.any():  # a dead norm: nothing to solve for, `tell` says so
            return None
        target = self._target(w, x, x.moments, residual, factor)
        return torch.from_numpy(self._solve(name, target, x.moments.hessian))

    def _experts(self, name: str, w: np.ndarray, x: Any, rows: Any) -> np.ndarray:
        """Solve each expert or head on its own rows; one that few reach leans on the rows of all.

        ``x`` (a Pair) holds the inputs of all, ``rows(e)`` those of one.
        """
        from ggq.converters.prepasses.solving.streams import Moments

        kind, width = grids.kind(self.types[name]), w.shape[-1]
        kept = self.store.load(name, (w.shape[0] * w.shape[1], kind.row_bytes(width)))
        if kept is not None:
            self._keep(name, w.shape, kept, [])
            return kind.dequantize(kept).reshape(w.shape)
        shared = x.student[0].shape[1] == width
        if shared and x.moments is None:
            x.moments = Moments(x, name)
        parts = list(self._solved(self._of_experts(name, w, x, rows, shared)))
        blocks = np.concatenate([p.blocks for p in parts])
        self.store.save(name, blocks)
        self._keep(name, w.shape, blocks, parts)
        return np.stack([p.values for p in parts])

    def _of_experts(
        self, name: str, w: np.ndarray, x: Any, rows: Any, shared: bool
    ) -> Iterator[Problem]:
        """Yield the problem of each expert, made when it is asked for: its moments are large."""
        from ggq.converters.prepasses.solving.streams import Moments

        for e, one in enumerate(w):
            own = rows(e)
            n = sum(len(part) for part in own.student)
            moments = Moments(own, f"{name}[{e}]") if n else x.moments
            if not n:
                self.unreached.setdefault(name, []).append(e)
            elif shared:
                moments.shrink_towards(x.moments, own, x, n / (n + w.shape[-1]))
            target = self._target(one, own if n else x, moments, None, 1.0)
            yield self._problem(name, target, moments.hessian)

    def tell(self, job: Any) -> None:
        """Add to the warnings what calibration did not reach."""
        missed = [n for n in self.types if n not in self.packed and n in job.tensors]
        if not self.options.head:
            missed = [n for n in missed if n.startswith("blk.")]
        if missed:
            what = (
                f"gptq: the calibration does not reach {len(missed)} tensors, such as {missed[0]}"
            )
            job.warnings.append(f"{what}; they are rounded without it")
        if self.unreached:
            name, experts = next(iter(self.unreached.items()))
            listed = ", ".join(map(str, experts[:8])) + (", ..." if len(experts) > 8 else "")
            others = len(self.unreached) - 1
            more = f" and some of {others} more tensors" if others else ""
            what = f"gptq: no calibration token reaches experts {listed} of {printable(name)}{more}"
            job.warnings.append(f"{what}; they are solved for the inputs of all experts")

    def _target(
        self,
        w: np.ndarray,
        x: Any,
        moments: Moments,
        residual: Pair | None,
        factor: float,
    ) -> np.ndarray:
        """Return the weights that would bring the student's outputs to the teacher's.

        With a residual both targets are one product: its cost is the outputs' width, not the
        inputs', which of a feed-forward layer are several times as many.
        """
        import torch

        from ggq.converters.prepasses.solving.solver import regress

        options = self.options
        if residual is None or not options.residual:
            shift = (options.strength * moments.shift(x)).astype(np.float32)
            return regress(w, moments.hessian, w @ shift, options.ridge)
        weight = torch.from_numpy(options.strength * w)
        share = options.residual / factor
        both = zip(x.differences(), residual.differences(), strict=True)
        missing = moments.against(x, (dx @ weight.T + share * dr for dx, dr in both))
        return regress(w, moments.hessian, missing.astype(np.float32), options.ridge)

    def _problem(self, name: str, target: np.ndarray, hessian: Hessian) -> Problem:
        from ggq.converters.prepasses.solving.problems import Problem

        options = self.options
        return Problem(self.types[name], target, hessian, options.sweeps, options.damp)

    def _solved(self, problems: Iterable[Problem]) -> Iterator[Solution]:
        from ggq.converters.prepasses.solving.problems import solve

        options = self.options
        if options.solve is not None:
            return options.solve(problems)
        return (solve(one, options.threads or None) for one in problems)

    def _solve(self, name: str, target: np.ndarray, hessian: Hessian) -> np.ndarray:
        from ggq.converters.prepasses.solving.problems import cut, joined

        kind = grids.kind(self.types[name])
        kept = self.store.load(name, (target.shape[0], kind.row_bytes(target.shape[1])))
        if kept is not None:
            self._keep(name, target.shape, kept, [])
            return kind.dequantize(kept)
        problem = self._problem(name, target, hessian)
        if curvature := self.curvature.pop(name, ()):
            problem = replace(problem, curvature=curvature, row_damp=self.options.row_damp)
        found = joined(list(self._solved(cut(problem))))
        self.store.save(name, found.blocks)
        self._keep(name, target.shape, found.blocks, [found])
        return found.values

    def _keep(
        self, name: str, shape: tuple[int, ...], blocks: np.ndarray, parts: list[Solution]
    ) -> None:
        self.packed[name] = Packed(name, shape, self.types[name], blocks)
        self.errors[name] = sum(p.plain_error for p in parts), sum(p.error for p in parts)
        if self.options.progress:
            self.options.progress(len(self.packed), len(self.types), name)


PREPASS = GPTQ

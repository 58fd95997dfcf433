"""The matrices that a pass has to solve, cut into problems that know nothing of each other.

Rows of one matrix share the moments of its inputs and nothing else; experts have their own. The
cuts are the same wherever a problem is solved, and so are the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ggq.converters import grids
from ggq.converters.prepasses.solving.hessian import Hessian
from ggq.converters.prepasses.solving.solver import ROW_DAMP, Rows, Solution, Solver

__all__ = ["Problem", "Solve", "cut", "joined", "solve"]

ROWS = 2048  # of a problem: fewer, and the factor of the moments outweighs the rows


@dataclass(frozen=True)
class Problem:
    """``target`` float32 (rows, n) in blocks of ``kind``; the rest as `Solver` takes it.

    ``shared``: further problems have the same moments.
    """

    kind: str
    target: np.ndarray
    hessian: Hessian
    sweeps: int
    damp: float
    curvature: Sequence[Rows] = ()
    row_damp: float = ROW_DAMP
    shared: bool = False


Solve = Callable[[Iterable[Problem]], Iterator[Solution]]  # one for each, in their order


def solve(problem: Problem, threads: int | None = None) -> Solution:
    """Solve one problem here."""
    solver = Solver(grids.kind(problem.kind), problem.sweeps, problem.damp, threads)
    return solver.solve(problem.target, problem.hessian, problem.curvature, problem.row_damp)


def cut(problem: Problem) -> Iterator[Problem]:
    """Yield the problem in runs of `ROWS` rows; whole where errors are spread over rows, too."""
    n = len(problem.target)
    if n <= ROWS or len(problem.curvature):
        yield problem
        return
    for first in range(0, n, ROWS):
        yield replace(problem, target=problem.target[first : first + ROWS], shared=True)


def joined(parts: Sequence[Solution]) -> Solution:
    """Return the solution of a problem that was cut."""
    return Solution(
        np.concatenate([one.blocks for one in parts]),
        np.concatenate([one.values for one in parts]),
        sum(one.plain_error for one in parts),
        sum(one.error for one in parts),
    )

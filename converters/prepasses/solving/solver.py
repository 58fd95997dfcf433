"""Finds the blocks of one matrix that are best for its inputs: scales by importance, then descent.

A problem is a target V (rows, n) and the second moment H (n, n) of the inputs; the error of a
result Q is the sum over rows of (q - v) H (q - v)'. Everything about blocks is asked of the
type: quantize and dequantize, and where it has a grid unpack, grid and pack. It knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from ggq.converters.encode import default_threads
from ggq.converters.prepasses.solving.hessian import Hessian, layer_error

__all__ = ["Solution", "Solver", "integer_range", "regress"]

_BLOCK = 128  # columns rounded before their errors reach the others
_ROWS = 64  # rows solved before their errors reach the others, of eighths of fewer rows
ROW_DAMP = 0.3
ENOUGH = 0.002  # a sweep that lowers the error by less is the last

Rows = tuple[slice, Hessian]  # rows solved together, the second moment of their gradients
Params = dict[str, np.ndarray]  # a block type's scales and minimums, by their names


@dataclass(frozen=True)
class Solution:
    """``blocks``: uint8 (rows, row bytes), their float32 ``values``, the error before and after."""

    blocks: np.ndarray
    values: np.ndarray
    plain_error: float
    error: float


def regress(w: np.ndarray, hessian: Hessian, missing: np.ndarray, ridge: float) -> np.ndarray:
    """Return the float32 target W + D (H + ridge)^-1, D = ``missing`` (rows, n).

    D is the correlation of the outputs that are missing with the inputs. Method: least squares
    from the student's inputs to the teacher's outputs, held to W by the ridge (Qronos, arXiv
    2505.11695, has the same target).
    """
    return (w + hessian.solve(missing, ridge)).astype(np.float32)


@cache
def integer_range(kind: Any, name: str) -> tuple[int, int]:
    """Return the lowest and highest value of an integer parameter that survives packing."""
    zeros = np.zeros((1, kind.block_size), np.float32)
    params, codes = kind.unpack(kind.pack(*_plain(kind, zeros)))
    dtype = params[name].dtype
    info = np.iinfo(dtype)
    kept = []
    for value in range(info.min, info.max + 1):
        given = {**params, name: np.full_like(params[name], value)}
        found, _ = kind.unpack(kind.pack(given, codes))
        if (found[name] == value).all():
            kept.append(value)
    return min(kept), max(kept)


def _plain(kind: Any, x: np.ndarray) -> tuple[Params, np.ndarray]:
    return kind.unpack(kind.quantize(x))


@dataclass
class _State:
    """Scales and codes of a matrix, and the gradient (q - v) H and error of each row for them."""

    params: Params
    codes: np.ndarray
    gradient: np.ndarray
    errors: np.ndarray

    @property
    def error(self) -> float:
        return float(self.errors.sum())


class Solver:
    """Solves problems of one block type: ``sweeps`` 0 leaves it at the column loop."""

    def __init__(self, kind: Any, sweeps: int = 0, damp: float = 0.2, threads: int | None = None):
        self.kind, self.sweeps, self.damp = kind, sweeps, damp
        self.threads = threads or default_threads()

    def solve(
        self,
        target: np.ndarray,
        hessian: Hessian,
        curvature: Sequence[Rows] = (),
        row_damp: float = ROW_DAMP,
    ) -> Solution:
        """Return the best blocks found; without ``curvature`` no row is worse than by plain search.

        ``curvature``: how the loss bends with groups of rows. The error is then that of the matrix,
        tr(O E H E') for errors E, and those of rows that are done are spread over the rows behind
        them, as columns' are over columns. ``row_damp`` of O's mean diagonal is added to it.
        Method: rows are to O as columns are to H in GPTQ (two-sided, as YAQA, arXiv 2505.22988).
        """
        target = np.ascontiguousarray(target, np.float32)
        h = hessian.damped(self.damp)
        h = (h / np.diag(h).mean()).astype(np.float32)
        blocks = np.empty((len(target), self.kind.row_bytes(target.shape[1])), np.uint8)
        values, errors = np.empty_like(target), np.zeros((2, len(target)))
        alone = np.ones(len(target), bool)
        for part, outer in curvature:
            alone[part] = False
            order = np.arange(len(target))[part][outer.order]
            upper = outer.factor(row_damp).astype(np.float32, copy=False)
            left, step = target[order], min(_ROWS, max(8, len(order) // 8))
            for a in range(0, len(order), step):
                b = min(a + step, len(order))
                rows = order[a:b]
                blocks[rows], values[rows], errors[:, rows] = self._rows(left[a:b], hessian, h)
                spread = np.linalg.solve(upper[a:b, a:b].T, left[a:b] - values[rows])
                left[b:] -= upper[a:b, b:].T @ spread
        if alone.any():
            blocks[alone], values[alone], errors[:, alone] = self._rows(target[alone], hessian, h)
        before, after = errors.sum(1)
        return Solution(blocks, values, float(before), float(after))

    def _rows(
        self, target: np.ndarray, hessian: Hessian, h: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return blocks, values and errors, before and after, of rows that know of no others."""
        kind = self.kind
        plain = kind.quantize(target, np.diag(h).copy())
        plain_values = kind.dequantize(plain)
        before = layer_error(plain_values, target, h)
        if hasattr(kind, "grid"):
            blocks = self._weight_by_weight(target, hessian, h, *kind.unpack(plain))
        else:
            blocks = self._block_by_block(target, hessian)
        values = kind.dequantize(blocks)
        after = layer_error(values, target, h)
        worse = ~(after <= before)
        blocks[worse], values[worse] = plain[worse], plain_values[worse]
        return blocks, values, np.stack([before, np.where(worse, before, after)])

    def _block_by_block(self, target: np.ndarray, hessian: Hessian) -> np.ndarray:
        """Return blocks by the type's own search, each block's errors spread over those behind it.

        For types whose codes name several weights at once. The search weighs a weight by what its
        error costs once the blocks behind have made up for it: the diagonal of (U_bb' U_bb)^-1.
        """
        upper, size = hessian.natural_factor(self.damp), self.kind.block_size
        left, blocks = target.copy(), []
        for first in range(0, left.shape[1], size):
            last = first + size
            own = np.linalg.inv(upper[first:last, first:last])
            cost = np.square(own).sum(1)
            here = np.ascontiguousarray(left[:, first:last])
            blocks.append(self.kind.quantize(here, (cost / cost.mean()).astype(np.float32)))
            errors = (here - self.kind.dequantize(blocks[-1])) @ own.astype(np.float32)
            left[:, last:] -= errors @ upper[first:last, last:].astype(np.float32)
        return np.concatenate(blocks, axis=1)

    def _weight_by_weight(
        self,
        target: np.ndarray,
        hessian: Hessian,
        h: np.ndarray,
        params: Params,
        codes: np.ndarray,
    ) -> np.ndarray:
        """Return blocks on the grid that ``params`` span, errors spread from weight to weight."""
        codes = self._columns(target, params, hessian, codes)
        return self.kind.pack(*self._descend(target, params, codes, h, hessian.order))

    def _columns(
        self, target: np.ndarray, params: Params, hessian: Hessian, codes: np.ndarray
    ) -> np.ndarray:
        """Return the codes of the column loop, scales fixed by ``params``."""
        from ggq.converters.prepasses.solving.descent import feed_block

        order, upper = hessian.order, hessian.factor(self.damp).astype(np.float32, copy=False)
        grid = self.kind.grid(params)
        values = grid.levels, _table(grid)
        codes, left = codes.copy(), target[:, order]
        for first in range(0, len(order), _BLOCK):
            last = first + _BLOCK
            columns = order[first:last]
            here, own = left[:, first:last].copy(), upper[first:last, first:last].copy()
            scale, offset = (_columns_of(a, columns) for a in (grid.scale, grid.offset))
            chosen, errors = np.empty(here.shape, np.uint8), np.empty_like(here)

            def work(
                a: int,
                b: int,
                here: np.ndarray = here,
                own: np.ndarray = own,
                grid: tuple[np.ndarray, np.ndarray] = (scale, offset),
                out: tuple[np.ndarray, np.ndarray] = (chosen, errors),
            ) -> None:
                part = tuple(g[a:b] for g in grid)
                feed_block(here[a:b], own, part, values, *(o[a:b] for o in out))

            self._each(work, len(target))
            codes[:, columns] = chosen
            left[:, last:] -= errors @ upper[first:last, last:]
        return codes

    def _descend(
        self,
        target: np.ndarray,
        params: Params,
        codes: np.ndarray,
        h: np.ndarray,
        order: np.ndarray,
    ) -> tuple[Params, np.ndarray]:
        """Alternate scales and codes; each step lowers the error or leaves it."""
        state = self._move_codes(self._state(target, params, codes, h), target, h, order)
        for _ in range(self.sweeps):
            before = state.error
            scales = [n for n in params if n != "codes"]  # a search by tables keeps its own
            for name in sorted(scales, key=lambda n: params[n].dtype.kind == "f"):
                state = self._move_scales(state, target, h, name)
            state = self._move_codes(state, target, h, order)
            if state.error > (1 - ENOUGH) * before:
                break
        return state.params, state.codes

    def _state(
        self, target: np.ndarray, params: Params, codes: np.ndarray, h: np.ndarray
    ) -> _State:
        residual = self.kind.grid(params).values(codes) - target
        gradient = residual @ h
        return _State(params, codes, gradient, np.einsum("ij,ij->i", residual, gradient))

    def _move_codes(
        self, state: _State, target: np.ndarray, h: np.ndarray, order: np.ndarray
    ) -> _State:
        from ggq.converters.prepasses.solving.descent import move_codes

        grid = self.kind.grid(state.params)
        scale = np.ascontiguousarray(grid.scale, np.float32)
        values, codes, gradient = (grid.levels, _table(grid)), state.codes.copy(), state.gradient

        def work(a: int, b: int) -> None:
            for _ in range(4):
                if not move_codes(h, gradient[a:b], scale[a:b], values, codes[a:b], order):
                    break

        self._each(work, len(codes))
        return self._state(target, state.params, codes, h)

    def _move_scales(self, state: _State, target: np.ndarray, h: np.ndarray, name: str) -> _State:
        """Return ``state`` with the parameter ``name`` of each group moved in turn."""
        from ggq.converters.prepasses.solving.descent import move_groups

        old = state.params[name]
        is_float = old.dtype.kind == "f"
        values = np.array(old.reshape(len(old), -1), np.float32)
        low, high = (-np.inf, np.inf) if is_float else integer_range(self.kind, name)
        here = self.kind.grid(state.params)
        direction = self._direction(state, here, name, high)

        def choose(group: int, slope: np.ndarray, curvature: np.ndarray) -> np.ndarray:
            """Return the rounded way to the lowest point, 0 where that does not go down."""
            unit = values[:, group] if is_float else np.float32(1)  # what a step of 1 adds
            with np.errstate(all="ignore"):
                new = values[:, group] - unit * (slope / curvature)
                new = new.astype(old.dtype).astype(np.float32) if is_float else np.rint(new)
                new = np.clip(new, low, high)
                step = (new - values[:, group]) / unit
                better = (curvature > 0) & (step * (2 * slope + step * curvature) < 0)
            step = np.where(better, step, np.float32(0))
            values[:, group] = np.where(better, new, values[:, group])
            return step

        move_groups(h, state.gradient, direction, target.shape[1] // values.shape[1], choose)
        moved = {**state.params, name: values.reshape(old.shape).astype(old.dtype)}
        if hasattr(here, "table"):  # an exponent's steps are not of one size
            return self._keep_better(state, self._state(target, moved, state.codes, h), target, h)
        return replace(state, params=moved)

    def _direction(self, state: _State, here: Any, name: str, high: float) -> np.ndarray:
        """Return the change of the weights when ``name`` grows by one, or by its own size."""
        old, codes = state.params[name], state.codes
        if old.dtype.kind == "f":
            without = self.kind.grid({**state.params, name: np.zeros_like(old)})
            return here.values(codes) - without.values(codes)
        sign = np.where(old < high, 1, -1)
        moved = self.kind.grid({**state.params, name: (old + sign).astype(old.dtype)})
        width = codes.shape[1] // int(np.prod(old.shape[1:]))
        signs = np.repeat(sign.reshape(len(old), -1), width, axis=1).astype(np.float32)
        return (moved.values(codes) - here.values(codes)) * signs

    def _keep_better(
        self, state: _State, trial: _State, target: np.ndarray, h: np.ndarray
    ) -> _State:
        """Return ``trial`` where it lowers the row's error, ``state`` elsewhere."""
        better = trial.errors < state.errors
        params = {
            n: np.where(better.reshape(-1, *[1] * (p.ndim - 1)), trial.params[n], p)
            for n, p in state.params.items()
        }
        return self._state(target, params, state.codes, h)

    def _each(self, work: Callable[[int, int], Any], rows: int) -> None:
        """Run ``work(first, last)`` over all rows on the threads."""
        step = max(8, -(-rows // (4 * self.threads)) // 8 * 8)
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(lambda a: work(a, min(a + step, rows)), range(0, rows, step)))


def _table(grid: Any) -> np.ndarray:
    """Return what the codes stand for, float32; empty where for themselves."""
    return np.ascontiguousarray(getattr(grid, "table", ()), np.float32)


def _columns_of(per_weight: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(per_weight[:, columns], np.float32)

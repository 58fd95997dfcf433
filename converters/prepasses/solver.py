"""Finds the blocks of one matrix that are best for its inputs: scales by importance, then descent.

A problem is a target V (rows, n) and the second moment H (n, n) of the inputs; the error of a
result Q is the sum over rows of (q - v) H (q - v)'. Everything about blocks is asked of the
`BlockType`: fit, grid, pack, decode. It knows no model.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ggq.converters.encode import default_threads
from ggq.errors import ModelError

__all__ = ["Solution", "Solver", "damped", "layer_error", "regress"]


ENOUGH = 0.002  # a sweep that lowers the error by less is the last


@dataclass(frozen=True)
class Solution:
    """``blocks``: uint8 (rows, row bytes), their float32 ``values``, the error before and after."""

    blocks: np.ndarray
    values: np.ndarray
    plain_error: float
    error: float


def layer_error(values: np.ndarray, target: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Return (q - v) H (q - v)' of each row, float64 (rows,)."""
    e = (values - target).astype(np.float32)
    return np.einsum("ij,ij->i", e @ hessian.astype(np.float32), e, dtype=np.float64)


def damped(hessian: np.ndarray, damp: float, name: str) -> np.ndarray:
    """Return H + damp * mean(diag H) * I, float64; ModelError where H is not finite or empty."""
    if not np.isfinite(hessian).all():
        raise ModelError(f"the inputs of {name} are not finite")
    mean = float(np.diag(hessian).mean())
    if mean <= 0:
        raise ModelError(f"the inputs of {name} are all zero: no calibration token reaches it")
    return hessian + damp * mean * np.eye(len(hessian))


def regress(
    w: np.ndarray, hessian: np.ndarray, cross: np.ndarray, name: str, ridge: float
) -> np.ndarray:
    """Return the float32 target W + D (H + ridge)^-1, D = ``cross`` (rows, n).

    D is the correlation of the outputs that are missing with the inputs. Method: least squares
    from the student's inputs to the teacher's outputs, held to W by the ridge (Qronos, arXiv
    2505.11695, has the same target).
    """
    step = np.linalg.solve(damped(hessian, ridge, name), cross.T).T
    return (w + step).astype(np.float32)


def inverse_factor(hessian: np.ndarray, name: str) -> np.ndarray:
    """Return the upper Cholesky factor U of H^-1 = U' U, float32; damping grows until it exists."""
    for extra in (0.0, 0.01, 0.1, 1.0):
        factor = _factor(damped(hessian, extra, name))
        if factor is not None:
            return factor
    raise ModelError(f"the second moments of {name}'s inputs are not positive definite")


def _factor(hessian: np.ndarray) -> np.ndarray | None:
    try:
        inverse = np.linalg.inv(hessian)
        return np.linalg.cholesky((inverse + inverse.T) / 2).T.astype(np.float32)
    except np.linalg.LinAlgError:
        return None


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


def _plain(kind: Any, x: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return kind.unpack(kind.quantize(x))


class Solver:
    """Solves problems of one block type: ``sweeps`` 0 leaves it at the column loop."""

    def __init__(self, kind: Any, sweeps: int = 6, damp: float = 0.05, threads: int | None = None):
        self.kind, self.sweeps, self.damp = kind, sweeps, damp
        self.threads = threads or default_threads()

    def solve(self, target: np.ndarray, hessian: np.ndarray, name: str) -> Solution:
        """Return the best blocks found; no row is worse than the plain search's."""
        kind = self.kind
        target = np.ascontiguousarray(target, np.float32)
        h64 = damped(hessian, self.damp, name)
        h = (h64 / np.diag(h64).mean()).astype(np.float32)
        importance = np.diag(h).astype(np.float32)
        plain = kind.quantize(target, importance)
        params, codes = kind.unpack(plain)
        plain_values = kind.decode(params, codes)
        before = layer_error(plain_values, target, h)
        order = np.argsort(-importance, kind="stable")
        codes = self._columns(target, params, h64[np.ix_(order, order)], order, codes, name)
        params, codes = self._descend(target, params, codes, h, order)
        blocks = kind.pack(params, codes)
        values = kind.decode(params, codes)
        after = layer_error(values, target, h)
        worse = ~(after <= before)
        blocks[worse], values[worse] = plain[worse], plain_values[worse]
        error = float(np.where(worse, before, after).sum())
        return Solution(blocks, values, float(before.sum()), error)

    def _columns(self, target, params, ordered, order, codes, name):
        """Return the codes of the column loop, scales fixed by ``params``."""
        from ggq.converters.prepasses.descent import feed_columns

        upper = inverse_factor(ordered, name)
        grid = self.kind.grid(params)
        scale, offset, table = _weights(grid)
        codes = codes.copy()

        def work(a: int, b: int) -> None:
            part = target[a:b], order, upper, scale[a:b], offset[a:b]
            feed_columns(*part, (grid.levels, table), codes[a:b])

        self._each(work, len(target))
        return codes

    def _descend(self, target, params, codes, h, order):
        """Alternate scales and codes; each step lowers the error or leaves it."""
        codes = self._move_codes(target, params, codes, h, order)
        error = np.inf
        for _ in range(self.sweeps):
            scales = [n for n in params if n != "codes"]  # a search by tables keeps its own
            for name in sorted(scales, key=lambda n: params[n].dtype.kind == "f"):
                if params[name].dtype.kind == "f":
                    params = self._move_halves(target, params, codes, h, name)
                else:
                    params = self._move_integers(target, params, codes, h, name)
            codes = self._move_codes(target, params, codes, h, order)
            before, error = error, layer_error(self.kind.decode(params, codes), target, h).sum()
            if error > (1 - ENOUGH) * before:
                break
        return params, codes

    def _move_codes(self, target, params, codes, h, order):
        from ggq.converters.prepasses.descent import move_codes

        grid = self.kind.grid(params)
        scale, _, table = _weights(grid)
        codes = codes.copy()
        gradient = (grid.values(codes) - target) @ h

        def work(a: int, b: int) -> None:
            for _ in range(4):
                part = gradient[a:b], scale[a:b], (grid.levels, table), codes[a:b], order
                if not move_codes(h, *part):
                    break

        self._each(work, len(target))
        return codes

    def _move_integers(self, target, params, codes, h, name):
        from ggq.converters.prepasses.descent import move_integers

        low, high = integer_range(self.kind, name)
        old = params[name].astype(np.int32)
        sign = np.where(old < high, 1, -1)
        moved = self.kind.grid({**params, name: (old + sign).astype(params[name].dtype)})
        here = self.kind.grid(params)
        width = target.shape[1] // int(np.prod(old.shape[1:]))
        signs = np.repeat(sign.reshape(len(old), -1), width, axis=1).astype(np.float32)
        direction = (moved.values(codes) - here.values(codes)) * signs
        gradient = (here.values(codes) - target) @ h
        values = np.ascontiguousarray(old.reshape(len(old), -1))
        self._each(
            lambda a, b: move_integers(
                h, gradient[a:b], direction[a:b], width, low, high, values[a:b]
            ),
            len(target),
        )
        trial = {**params, name: values.reshape(old.shape).astype(params[name].dtype)}
        if hasattr(here, "table"):  # an exponent's steps are not of one size
            return self._keep_better(target, params, trial, codes, h)
        return trial

    def _move_halves(self, target, params, codes, h, name):
        from ggq.converters.prepasses.descent import move_halves

        here = self.kind.grid(params).values(codes)
        without = self.kind.grid({**params, name: np.zeros_like(params[name])}).values(codes)
        gradient, direction = (here - target) @ h, here - without
        old = params[name]
        values = np.ascontiguousarray(old.reshape(len(old), -1).astype(np.float32))
        width = target.shape[1] // values.shape[1]
        self._each(
            lambda a, b: move_halves(h, gradient[a:b], direction[a:b], width, values[a:b]),
            len(target),
        )
        rounded = values.reshape(old.shape).astype(old.dtype)
        trial = {**params, name: rounded}
        return self._keep_better(target, params, trial, codes, h)

    def _keep_better(self, target, params, trial, codes, h):
        """Return ``trial`` where it lowers the row's error: half precision may undo a step."""
        before = layer_error(self.kind.grid(params).values(codes), target, h)
        after = layer_error(self.kind.grid(trial).values(codes), target, h)
        better = after < before
        return {
            n: np.where(better.reshape(-1, *[1] * (p.ndim - 1)), trial[n], p)
            for n, p in params.items()
        }

    def _each(self, work: Callable[[int, int], Any], rows: int) -> None:
        """Run ``work(first, last)`` over all rows on the threads."""
        step = max(8, -(-rows // (4 * self.threads)) // 8 * 8)
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(lambda a: work(a, min(a + step, rows)), range(0, rows, step)))


def _weights(grid: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scale, offset and table (empty: codes stand for themselves), contiguous float32."""
    return (
        np.ascontiguousarray(grid.scale, np.float32),
        np.ascontiguousarray(grid.offset, np.float32),
        np.ascontiguousarray(getattr(grid, "table", ()), np.float32),
    )

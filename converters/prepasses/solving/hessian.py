"""The second moment of a linear's inputs, and what solving with it needs.

It knows no block types and no models. The error of weights Q against a target V is the sum over
rows of (q - v) H (q - v)', hence the name: H is half its second derivative.
"""

from __future__ import annotations

import numpy as np

from ggq.errors import ModelError, printable

__all__ = ["Hessian", "damped", "layer_error"]

_FIRM = 0.01  # from this damping on float32 has the digits: 1e-7 of the largest, measured
_SMALL = 128  # triangles up to this width are inverted by LAPACK


class Hessian:
    """``matrix``: float64 (n, n), E[x x'] over the inputs x of the linear ``name``.

    Factors are kept: linears that read the same input share them. ModelError where the matrix is
    not finite, empty, or not positive definite with any damping.
    """

    def __init__(self, matrix: np.ndarray, name: str):
        self.matrix, self.name = matrix, name
        self._factors: dict[float, np.ndarray] = {}

    def damped(self, damp: float) -> np.ndarray:
        """Return `damped` of the matrix."""
        return damped(self.matrix, damp, self.name)

    @property
    def order(self) -> np.ndarray:
        """The columns, strongest input first: int64 (n,)."""
        return np.argsort(-np.diag(self.matrix), kind="stable")

    def factor(self, damp: float) -> np.ndarray:
        """Return upper triangular U of the damped inverse U' U, in the order `order`.

        Damping grows until U exists. Method: H = R R' with R upper triangular is a Cholesky
        factor from the last row to the first; U is the inverse of R. Float32, in half the time,
        where the damping bounds the loss of digits (`_FIRM`), else float64.
        """
        if damp not in self._factors:
            order = self.order
            self._factors[damp] = self._factor(self.damped(damp)[np.ix_(order, order)], damp)
        return self._factors[damp]

    def natural_factor(self, damp: float) -> np.ndarray:
        """Return what `factor` does with the columns as they are; not kept."""
        return self._factor(self.damped(damp), damp)

    def _factor(self, ordered: np.ndarray, damp: float) -> np.ndarray:
        if damp >= _FIRM:
            ordered = ordered.astype(np.float32)
        for extra in (0.0, 0.01, 0.1, 1.0):
            matrix = damped(ordered, extra, self.name) if extra else ordered
            try:
                lower = np.linalg.cholesky(matrix[::-1, ::-1].astype(ordered.dtype, copy=False))
                return _inverse_of_upper(lower[::-1, ::-1])
            except np.linalg.LinAlgError:
                continue
        what = f"the second moments of {printable(self.name)}'s inputs"
        raise ModelError(f"{what} are not positive definite")

    def solve(self, rows: np.ndarray, damp: float) -> np.ndarray:
        """Return ``rows`` (m, n) times the damped inverse, computed in the precision of rows."""
        order, upper = self.order, self.factor(damp).astype(rows.dtype, copy=False)
        found = np.empty_like(rows)
        found[:, order] = (rows[:, order] @ upper.T) @ upper
        return found


def damped(hessian: np.ndarray, damp: float, name: str) -> np.ndarray:
    """Return H + damp * mean(diag H) * I, float64; ModelError where H is not finite or empty."""
    if not np.isfinite(hessian).all():
        raise ModelError(f"the inputs of {printable(name)} are not finite")
    mean = float(np.diag(hessian).mean())
    if mean <= 0:
        what = f"the inputs of {printable(name)} are all zero"
        raise ModelError(f"{what}: no calibration token reaches it")
    found = np.array(hessian, np.float64)
    found.flat[:: len(found) + 1] += damp * mean
    return found


def layer_error(values: np.ndarray, target: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Return (q - v) H (q - v)' of each row, float64 (rows,)."""
    e = (values - target).astype(np.float32)
    return np.einsum("ij,ij->i", e @ hessian.astype(np.float32, copy=False), e, dtype=np.float64)


def _inverse_of_upper(r: np.ndarray) -> np.ndarray:
    """Return the inverse of an upper triangular matrix: halves, joined by matrix products."""
    n = len(r)
    if n <= _SMALL:
        return np.linalg.inv(r)
    half = n // 2
    found = np.zeros_like(r)
    found[:half, :half] = a = _inverse_of_upper(r[:half, :half])
    found[half:, half:] = c = _inverse_of_upper(r[half:, half:])
    found[:half, half:] = -a @ r[:half, half:] @ c
    return found

"""Compiled loops of the solver: columns with error feedback, codes and scales by descent.

All minimize the rows of (q - v) H (q - v)' for values q = scale * code - offset per weight; the
rows are independent. They know grids, not block types. Float32 throughout; callers share out the
rows to threads (nothing holds the interpreter's lock) and recompute gradients between calls.
"""

import numpy as np

from ggq.jit import njit, njit_cached

__all__ = ["feed_columns", "move_codes", "move_halves", "move_integers"]

_ULP = np.float32(2**-12)  # relative steps below it are lost in half precision
_ROWS = 8  # rows that share a column of H while it is in cache


@njit
def _nearest(x, levels, table):
    """Return the code nearest to ``x``: 0 .. levels - 1 by itself, or by its value in ``table``."""
    if len(table) == 0:
        return min(max(np.rint(x), np.float32(0)), np.float32(levels - 1))
    best = 0
    for code in range(1, len(table)):
        if abs(table[code] - x) < abs(table[best] - x):
            best = code
    return np.float32(best)


@njit
def _value(code, table):
    """Return what ``code`` stands for before scale and offset."""
    return code if len(table) == 0 else table[int(code)]


@njit_cached
def feed_columns(v, order, upper, scale, offset, values, codes):
    """Round column after column in ``order``, each error spread over the columns that follow.

    ``upper`` (n, n): the upper Cholesky factor of the inverse Hessian, rows and columns in
    ``order``; ``v``, ``scale``, ``offset``: (rows, n) in natural order; ``values``: the
    number of codes and the table of what they stand for, empty where themselves. Writes ``codes``.
    Source: GPTQ, arXiv 2210.17323, with scales fixed before (static groups).
    """
    levels, table = values
    rows, n = v.shape
    for first in range(0, rows, _ROWS):
        last = min(first + _ROWS, rows)
        left = np.empty((last - first, n), np.float32)
        for r in range(first, last):
            for k in range(n):
                left[r - first, k] = v[r, order[k]]
        for k in range(n):
            column = order[k]
            inverse = np.float32(1) / upper[k, k]
            for r in range(first, last):
                s, o, x = scale[r, column], offset[r, column], left[r - first, k]
                code = np.float32(0)
                if s != 0:
                    code = _nearest((x + o) / s, levels, table)
                codes[r, column] = np.uint8(code)
                error = (x - (s * _value(code, table) - o)) * inverse
                for j in range(k + 1, n):
                    left[r - first, j] -= error * upper[k, j]


@njit_cached
def move_codes(hessian, gradient, scale, values, codes, order):
    """Give each weight in turn the code that is best with all others as they are.

    ``gradient`` (rows, n): (q - v) H, kept up to date. Returns the number of codes moved.
    """
    levels, table = values
    rows, n = gradient.shape
    moved = 0
    for r in range(rows):
        g = gradient[r]
        for index in range(n):
            k = order[index]
            s = scale[r, k]
            if s == 0:
                continue
            old = np.float32(codes[r, k])
            value = _value(old, table)
            new = _nearest(value - g[k] / (hessian[k, k] * s), levels, table)
            if new != old:
                step = s * (_value(new, table) - value)
                gain = step * (np.float32(2) * g[k] + step * hessian[k, k])
                if gain < 0:
                    codes[r, k] = np.uint8(new)
                    moved += 1
                    for j in range(n):
                        g[j] += step * hessian[k, j]
    return moved


@njit_cached
def move_integers(hessian, gradient, direction, width, low, high, values):
    """Move each small-integer parameter to its best value with all others as they are.

    ``direction`` (rows, n): change of the weights when the parameter of their group grows by one;
    ``width``: weights of a group; ``values`` int32 (rows, n / width), held to low .. high.
    """
    rows, n = gradient.shape
    for r in range(rows):
        g, along = gradient[r], direction[r]
        for group in range(n // width):
            first = group * width
            slope, curvature = _along(hessian, g, along, first, width)
            if curvature <= 0:
                continue
            old = np.float32(values[r, group])
            wanted = np.rint(old - slope / curvature)
            new = min(max(wanted, np.float32(low)), np.float32(high))
            step = new - old
            if step != 0 and step * (np.float32(2) * slope + step * curvature) < 0:
                values[r, group] = np.int32(new)
                _shift(hessian, g, along, first, width, step)


@njit_cached
def move_halves(hessian, gradient, direction, width, values):
    """Scale each half-precision parameter by its best factor 1 + t with all others as they are.

    ``direction`` (rows, n): the part of the weights that is proportional to the parameter. Writes
    the new float32 ``values`` (rows, n / width), not yet rounded.
    """
    rows, n = gradient.shape
    for r in range(rows):
        g, along = gradient[r], direction[r]
        for group in range(n // width):
            first = group * width
            slope, curvature = _along(hessian, g, along, first, width)
            if curvature > 0 and abs(slope) > _ULP * curvature:
                step = -slope / curvature
                values[r, group] *= np.float32(1) + step
                _shift(hessian, g, along, first, width, step)


@njit
def _along(hessian, g, along, first, width):
    """Return half the slope and the curvature of the error along ``along`` within a group."""
    bent = np.zeros(width, np.float32)
    for k in range(width):
        a = along[first + k]
        if a != 0:
            for j in range(width):
                bent[j] += a * hessian[first + k, first + j]
    slope = np.float32(0)
    curvature = np.float32(0)
    for k in range(width):
        slope += along[first + k] * g[first + k]
        curvature += along[first + k] * bent[k]
    return slope, curvature


@njit
def _shift(hessian, g, along, first, width, step):
    """Update the gradient for a step along ``along`` within a group."""
    for k in range(first, first + width):
        move = step * along[k]
        if move != 0:
            for j in range(len(g)):
                g[j] += move * hessian[k, j]

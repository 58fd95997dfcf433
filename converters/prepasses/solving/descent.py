"""Loops of the solver: columns with error feedback, codes and scales by descent.

All minimize the rows of (q - v) H (q - v)' for values q = scale * code - offset per weight; the
rows are independent. They know grids, not block types. Float32 throughout. What goes weight by
weight is compiled (callers share out the rows to threads, nothing holds the interpreter's lock);
what goes group by group is matrix products.
"""

from collections.abc import Callable

import numpy as np

from ggq.jit import njit, njit_cached

__all__ = ["feed_block", "move_codes", "move_groups"]

Choose = Callable[[int, np.ndarray, np.ndarray], np.ndarray]

_COLUMNS = 256  # moved before the gradient of the others is brought up to date
_ROWS = 8  # rows that share a column of H while it is in cache


@njit
def _nearest(x, levels, table):
    """Return the code nearest to ``x``: 0 .. levels - 1 by itself, or by its value in ``table``."""
    if len(table) == 0:
        return min(max(np.rint(x), np.float32(0)), np.float32(levels - 1))
    if len(table) > 16:  # such tables are sorted
        low, high = 0, len(table) - 1
        while low < high:
            middle = (low + high) // 2
            if table[middle] + table[middle + 1] <= np.float32(2) * x:
                low = middle + 1
            else:
                high = middle
        return np.float32(low)
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
def feed_block(v, upper, grid, values, codes, errors):
    """Round a block of columns from left to right, each error spread over those that follow.

    ``v`` float32 (rows, width), is overwritten; ``upper`` (width, width): the block's part of the
    upper Cholesky factor of the inverse Hessian; ``grid``: scale and offset, float32 (rows, width);
    ``values``: the number of codes and the table of what they stand for, empty where themselves.
    Writes ``codes`` and the ``errors`` to spread over the columns beyond.
    Source: GPTQ, arXiv 2210.17323, with scales fixed before (static groups).
    """
    scale, offset = grid
    levels, table = values
    rows, width = v.shape
    for first in range(0, rows, _ROWS):
        last = min(first + _ROWS, rows)
        for k in range(width):
            inverse = np.float32(1) / upper[k, k]
            for r in range(first, last):
                s, o, x = scale[r, k], offset[r, k], v[r, k]
                code = np.float32(0)
                if s != 0:
                    code = _nearest((x + o) / s, levels, table)
                codes[r, k] = np.uint8(code)
                error = (x - (s * _value(code, table) - o)) * inverse
                errors[r, k] = error
                for j in range(k + 1, width):
                    v[r, j] -= error * upper[k, j]


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


def move_groups(
    hessian: np.ndarray, gradient: np.ndarray, direction: np.ndarray, width: int, choose: Choose
) -> None:
    """Move along ``direction`` in each group of ``width`` columns, all others as they are.

    ``choose(group, slope, curvature)`` returns the steps of all rows, float32 (rows,), given half
    the slope and the curvature of the error along the direction. ``gradient`` (rows, n),
    (q - v) H, is kept up to date.
    """
    n = gradient.shape[1]
    wide = max(width, _COLUMNS // width * width)
    for first in range(0, n, wide):
        last = min(first + wide, n)
        here = gradient[:, first:last].copy()
        moves = np.zeros_like(here)
        for a in range(first, last, width):
            group, ahead = slice(a - first, a - first + width), slice(a - first + width, None)
            along = direction[:, a : a + width]
            bent = along @ hessian[a : a + width, a : a + width]
            slope = np.einsum("ij,ij->i", along, here[:, group])
            curvature = np.einsum("ij,ij->i", along, bent)
            moves[:, group] = choose(a // width, slope, curvature)[:, None] * along
            here[:, ahead] += moves[:, group] @ hessian[a : a + width, a + width : last]
        gradient += moves @ hessian[first:last]

"""Searches for the scales of evenly spaced codes: least squares over ways to cut the range.

For each candidate the codes are rounded, then the scale is the one that is best for them; the best
pair of all wins (least squares as in ggml's make_qx_quants, with as many weights as a group has).
Compiled, sixteen weights of a group at once; nothing holds the interpreter's lock.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ggq.jit import njit, njit_cached
from ggq.simd import (
    f32x16,
    load,
    reduce_add,
    reduce_max,
    rint,
    splat,
    vmax,
    vmin,
    zeros,
)

__all__ = ["asymmetric", "places", "symmetric"]

LANES = 16

# The code that the largest magnitude would have, in units of half the range: above 1 it is cut off.
CUTS = {4: np.linspace(0.9, 1.45, 23), 8: np.linspace(0.99, 1.14, 6)}
SHARES = np.array([1.0, 0.93, 0.86, 0.79, 0.72])  # of the least and the greatest value, each alone


def symmetric(kind: Any, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """Return float32 scales (rows, groups) of x (rows, n); ``importance`` (n,) or None.

    Codes of four bits may have a negative scale: the largest magnitude takes the code that the
    other sign lacks.
    """
    x, weight, width = _arrays(x, importance, kind.group)
    half = kind.levels // 2
    scales = np.zeros((len(x), x.shape[1] // width), np.float32)
    cuts = (CUTS[kind.bits] * half).astype(np.float32)
    _symmetric(x.ctypes.data, weight.ctypes.data, (half, width), kind.bits == 4, cuts, scales)
    return scales


def asymmetric(
    kind: Any, x: np.ndarray, importance: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 scales and uint8 zeros, both (rows, groups)."""
    x, weight, width = _arrays(x, importance, kind.group)
    scales = np.zeros((len(x), x.shape[1] // width), np.float32)
    zero = np.zeros(scales.shape, np.uint8)
    shape, shares = (kind.levels - 1, width), SHARES.astype(np.float32)
    _asymmetric(x.ctypes.data, weight.ctypes.data, shape, shares, scales, zero)
    return scales, zero


def _arrays(
    x: np.ndarray, importance: np.ndarray | None, group: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return x and the weights of its squares, groups filled up with zeros, and their width."""
    x = np.ascontiguousarray(x, np.float32)
    given = np.ones(x.shape[1], np.float32) if importance is None else importance
    weight = np.ascontiguousarray(given, np.float32)
    more = -group % LANES
    if not more:
        return x, weight, group
    rows = np.pad(x.reshape(len(x), -1, group), ((0, 0), (0, 0), (0, more)))
    columns = np.pad(weight.reshape(-1, group), ((0, 0), (0, more)))
    return rows.reshape(len(x), -1), columns.reshape(-1), group + more


@njit
def _full(value):
    return splat(np.float32(value), f32x16)


@njit
def _sums(x, weight, width, inverse, zero, low, high):
    """Return the weighted sums of x * code and code * code; codes count from their zero."""
    along, size = zeros(f32x16), zeros(f32x16)
    factor, shift = _full(inverse), _full(zero)
    least, most = _full(low), _full(high)
    for i in range(0, 4 * width, 4 * LANES):
        v = load(x + i, f32x16)
        code = vmin(vmax(rint(v * factor) + shift, least), most) - shift
        weighted = load(weight + i, f32x16) * code
        along = along + weighted * v
        size = size + weighted * code
    return reduce_add(along), reduce_add(size)


@njit
def _range(x, width):
    """Return the least and the greatest of a group's values and zero, the least as a magnitude."""
    least, most = zeros(f32x16), zeros(f32x16)
    for i in range(0, 4 * width, 4 * LANES):
        v = load(x + i, f32x16)
        least, most = vmax(least, zeros(f32x16) - v), vmax(most, v)
    return reduce_max(least), reduce_max(most)


@njit_cached
def _symmetric(x, weight, shape, signed, cuts, scales):
    half, width = shape
    rows, groups = scales.shape
    for r in range(rows):
        for g in range(groups):
            here, mine = x + 4 * (r * groups + g) * width, weight + 4 * g * width
            below, above = _range(here, width)
            most = max(below, above)
            if most == 0:
                continue
            turned = signed and above >= below
            best, chosen = np.float32(0), most / np.float32(half - 1)
            for cut in cuts:
                inverse = (-cut if turned else cut) / most
                along, size = _sums(here, mine, width, inverse, 0, -half, half - 1)
                if size > 0 and along * along > best * size:
                    best, chosen = along * along / size, along / size
            scales[r, g] = chosen


@njit_cached
def _asymmetric(x, weight, shape, shares, scales, zero):
    top, width = shape
    rows, groups = scales.shape
    for r in range(rows):
        for g in range(groups):
            here, mine = x + 4 * (r * groups + g) * width, weight + 4 * g * width
            least, most = _range(here, width)
            if least + most == 0:
                continue
            best = np.float32(-1)
            for below in shares:
                for above in shares:
                    d = (above * most + below * least) / np.float32(top)
                    at = min(np.rint(below * least / d), np.float32(top))
                    along, size = _sums(here, mine, width, np.float32(1) / d, at, 0, top)
                    gain = along * along / size if size > 0 else np.float32(0)
                    if gain > best:
                        best = gain
                        scales[r, g] = along / size if size > 0 else d
                        zero[r, g] = np.uint8(at)


@njit_cached
def _places(x, scales, middles, codes):
    """Write how many of ``middles`` lie at or below each x / scale: the nearest value's place."""
    rows, groups = scales.shape
    width = x.shape[1] // groups
    for r in range(rows):
        for i in range(x.shape[1]):
            d = scales[r, i // width]
            v = x[r, i] / d if d != 0 else np.float32(0)
            low, high = 0, len(middles)
            while low < high:
                middle = (low + high) // 2
                if middles[middle] <= v:
                    low = middle + 1
                else:
                    high = middle
            codes[r, i] = np.uint8(low)


def places(x: np.ndarray, scales: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Return uint8 (rows, n): the place of the value nearest to each x / scale in a sorted table.

    ``scales`` (rows, groups), ``middles``: float32, what lies between neighbours of the table.
    """
    codes = np.empty(x.shape, np.uint8)
    _places(np.ascontiguousarray(x, np.float32), np.ascontiguousarray(scales), middles, codes)
    return codes

"""The vectors of a lattice that are near a point beside it, and the search for the best of them.

A point is a word: the level of each element, lowest bits first, in 2 bits (8 elements) or 3 (4
elements). It knows no block layout.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import float32, uint16, uint32

from ggq.jit import njit
from ggq.quants.encoders.search import at, full, put
from ggq.quants.lattices import lattice
from ggq.simd import (
    bitcast,
    convert,
    first_lane,
    i32x16,
    load,
    lookup8,
    reduce_max,
    select,
    splat,
    stack,
    u16x16,
    u32x16,
    zeros,
)

# How many of the smallest distances count as near: ggml's choice (iq2xs_init_impl and iq3xs_...).
_DISTANCES = {"IQ1_S": 3, "IQ2_XXS": 2, "IQ2_XS": 2, "IQ2_S": 1, "IQ3_XXS": 2, "IQ3_S": 3}
_RUN = 16
_COUNT_BITS, _COUNT = 6, 63
_FLOAT_MAX = np.float32(3.4028234663852886e38)


@dataclass(frozen=True)
class Neighbours:
    """What the search needs of a lattice, by word.

    ``codes`` (uint16): the code of a vector. ``lists`` (uint32): number of the first run of
    neighbours, shifted by 6 bits, plus how many runs, zero for vectors of the lattice. ``runs``:
    uint16 (runs, 16), neighbours in ggml's order, by distance, then by code; the last one repeats.
    """

    codes: np.ndarray
    lists: np.ndarray
    runs: np.ndarray

    @property
    def addresses(self) -> tuple[int, int, int]:
        """Return where codes, lists and runs lie."""
        return self.codes.ctypes.data, self.lists.ctypes.data, self.runs.ctypes.data


@cache
def neighbours(name: str) -> Neighbours:
    """Return the neighbours in the lattice ``name``: a fraction of a second, once."""
    values = lattice(name)
    vectors = np.searchsorted(np.unique(values), values)
    count, elements = int(vectors.max()) + 1, vectors.shape[1]
    shifts = np.arange(elements) * (2 if elements == 8 else 3)
    words = (vectors << shifts).sum(1)
    assert words[0] == 0  # what is not searched at all has code 0
    points = np.arange(count**elements)[:, None] // count ** np.arange(elements) % count
    point_words = (points << shifts).sum(1)
    outside = ~np.isin(point_words, words)
    rows, near = _nearest(points[outside], vectors, _DISTANCES[name])
    size = 1 << int(shifts[-1] + shifts[1])
    codes, lists = np.zeros(size, np.uint16), np.zeros(size, np.uint32)
    codes[words] = np.arange(len(words))
    lists[point_words[outside]], runs = _runs(rows, words[near])
    return Neighbours(codes, lists, runs)


def _nearest(points, vectors, n_distances):
    """Return pairs (point, vector) at each point's ``n_distances`` smallest distances, in order."""
    p, v = points.astype(np.float32), vectors.astype(np.float32)
    distances = ((p**2).sum(1)[:, None] + (v**2).sum(1) - 2 * p @ v.T).astype(np.uint8)  # < 200
    limit = distances.min(1, keepdims=True)
    for _ in range(n_distances - 1):
        limit = np.where(distances > limit, distances, np.uint8(255)).min(1, keepdims=True)
    rows, near = np.nonzero(distances <= limit)
    order = np.argsort(rows * 256 + distances[rows, near], kind="stable")
    return rows[order], near[order]


def _runs(rows, words):
    """Return the entry of ``lists`` of each row and the runs of all rows' ``words``."""
    counts = np.bincount(rows)
    n_runs = -(-counts // _RUN)
    ends = np.cumsum(counts)
    first = np.cumsum(n_runs) - n_runs
    runs = np.repeat(words[ends - 1], _RUN * n_runs).astype(np.uint16)
    place = np.arange(len(rows)) - (ends - counts)[rows]
    runs[_RUN * first[rows] + place] = words
    assert n_runs.max() <= _COUNT
    return first << _COUNT_BITS | n_runs, runs.reshape(-1, _RUN)


@njit
def nearest(lists, runs, word, x, w, levels, n, bits):
    """Return the word of the neighbour of ``word``, or itself in the lattice, that is nearest to x.

    ``x`` and ``w`` are addresses of ``n`` floats in one lane of scratch, ``levels`` is the value of
    each level (f32x16, repeated). The first of equals wins, as in ggml's iq2_find_best_neighbour.
    """
    entry = load(lists + 4 * word, uint32)
    count = np.int64(entry & np.uint32(_COUNT))
    if count == 0:
        return word
    tables = stack(512)
    for i in range(n):
        difference = levels - full(load(x + 64 * i, float32))
        put(tables, i, full(load(w + 64 * i, float32)) * difference * difference)
    run = runs + 2 * _RUN * np.int64(entry >> np.uint32(_COUNT_BITS))
    best, best_run = full(_FLOAT_MAX), zeros(i32x16)
    for r in range(count):
        words = convert(load(run + 2 * _RUN * r, u16x16), u32x16)
        total = lookup8(at(tables, 0), words)
        for i in range(1, n):
            total = total + lookup8(at(tables, i), words >> splat(bits * i, u32x16))
        better = total < best
        best = select(better, total, best)
        best_run = select(better, splat(r, i32x16), best_run)
    smallest, chosen = _smallest(best), 0
    hits = bitcast(best, i32x16) == splat(smallest, i32x16)
    if count > 1:
        chosen = ~reduce_max(~select(hits, best_run, splat(_COUNT, i32x16)))
        hits = hits & (best_run == splat(chosen, i32x16))
    lane = first_lane(hits) & (_RUN - 1)
    return np.int64(load(run + 2 * _RUN * chosen + 2 * lane, uint16))


@njit
def _smallest(values):
    """Return the bits of the smallest of non-negative floats: they are ordered as integers."""
    return ~reduce_max(~bitcast(values, i32x16))

"""The neighbours of a lattice and the search among them against plain twins, on vectors by hand."""

import numba
import numpy as np
import pytest
from encoder_inputs import bell

from ggq.quants.encoders import neighbours as under_test
from ggq.quants.encoders.neighbours import neighbours
from ggq.quants.lattices import lattice
from ggq.simd import f32x16, first_lane, i32x16, load, lookup8, store, u32x16

NAMES = {"IQ1_S": 3, "IQ2_XXS": 2, "IQ2_XS": 2, "IQ2_S": 1, "IQ3_XXS": 2, "IQ3_S": 3}


@numba.njit
def _nearest(lists, runs, word, x, w, levels, n, bits):
    return under_test.nearest(lists, runs, word, x, w, load(levels, f32x16), n, bits)


@numba.njit
def _look_up(table, index, out):
    store(out, lookup8(load(table, f32x16), load(index, u32x16)))


@numba.njit
def _first_equal(a, b):
    return first_lane(load(a, i32x16) == load(b, i32x16))


def shape_of(name):
    """Return level numbers (vectors, elements), number of levels and bits of a level."""
    vectors = np.searchsorted(np.unique(lattice(name)), lattice(name))
    return vectors, vectors.max() + 1, 2 if vectors.shape[1] == 8 else 3


def word_of(levels, bits):
    return int((levels << np.arange(len(levels)) * bits).sum())


def plain_neighbours(vectors, point, n_distances):
    """Return the vectors at the smallest distances from ``point``, by distance, then by code."""
    distances = ((vectors - point) ** 2).sum(1)
    limit = sorted(set(distances))[n_distances - 1]
    order = sorted(range(len(vectors)), key=lambda i: (distances[i], i))
    return [i for i in order if distances[i] <= limit]


def listed(found, word):
    entry = int(found.lists[word])
    first, count = entry >> 6, entry & 63
    return found.runs[first : first + count].ravel().tolist()


@pytest.mark.parametrize("name", NAMES)
def test_neighbours(name, rng):
    found = neighbours(name)
    vectors, count, bits = shape_of(name)
    words = [word_of(v, bits) for v in vectors]
    assert [found.codes[w] for w in words] == list(range(len(words)))
    assert not found.lists[words].any()
    for _ in range(100):
        point = rng.integers(0, count, vectors.shape[1])
        word = word_of(point, bits)
        if word in words:
            continue
        near = [words[i] for i in plain_neighbours(vectors, point, NAMES[name])]
        got = listed(found, word)
        assert got == near + [near[-1]] * (-len(near) % 16)


@pytest.mark.parametrize("name", NAMES)
def test_nearest(name, rng):
    found = neighbours(name)
    vectors, _, bits = shape_of(name)
    n = vectors.shape[1]
    levels = np.tile((2 * np.arange(1 << bits) + 1).astype(np.float32), 16 >> bits)
    levels *= np.float32(0.37)
    outside = np.flatnonzero(found.lists)
    for word in rng.choice(outside, 200):
        x, w = np.zeros((2, n, 16), np.float32)
        lane = rng.integers(16)
        point = word >> np.arange(n) * bits & (1 << bits) - 1
        x[:, lane] = levels[point] + bell(rng, n) * np.float32(0.2)
        w[:, lane] = np.abs(bell(rng, n)) * (rng.random() < 0.9)  # all zero: all are equally near
        best = None
        for candidate in listed(found, word):
            difference = levels[candidate >> np.arange(n) * bits & (1 << bits) - 1] - x[:, lane]
            error = np.float32(0)
            for part in w[:, lane] * difference * difference:
                error = error + part
            if best is None or error < best[0]:
                best = error, candidate
        got = _nearest(
            *found.addresses[1:],
            *(int(word), x[0, lane:].ctypes.data, w[0, lane:].ctypes.data),
            *(levels.ctypes.data, n, bits),
        )
        assert got == best[1]
    inside = int(word_of(vectors[-1], bits))
    where = (x.ctypes.data, w.ctypes.data, levels.ctypes.data)
    assert _nearest(*found.addresses[1:], inside, *where, n, bits) == inside


def test_lookup_in_eight_floats(rng):
    table = np.tile(bell(rng, 8), 2)
    index = rng.integers(0, 1 << 32, 16, dtype=np.uint32)
    out = np.zeros(16, np.float32)
    _look_up(table.ctypes.data, index.ctypes.data, out.ctypes.data)
    assert np.array_equal(out, table[index % 8])


def test_first_lane(rng):
    a, b = np.zeros((2, 16), np.int32)
    for first in range(16):
        b[:first] = 1
        b[first:] = rng.integers(0, 2, 16 - first)
        b[first] = 0
        assert _first_equal(a.ctypes.data, b.ctypes.data) == first
    assert _first_equal(a.ctypes.data, (b * 0 + 1).ctypes.data) == 16

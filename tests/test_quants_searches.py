"""The searches in lanes against plain twins: the same scales bit for bit and the same codes."""

import numba
import numpy as np
import plain_searches as plain
import pytest
from encoder_inputs import bell, power

from ggq.quants.encoders import search
from ggq.simd import store

LANES = 16


@numba.njit
def _scale(x, w, n, nmax, finite, out, codes):
    store(out, search.scale_search(x, w, n, nmax, finite, codes))


@numba.njit
def _descent(x, nmax, out, codes):
    search.descent_search(x, nmax, out, codes)


@numba.njit
def _positive(x, w, n, nmax, out, codes):
    store(out, search.positive_search(x, w, n, nmax, codes))


@numba.njit
def _scale_min(x, w, n, nmax, first, steps, absolute, out, codes):
    delta = np.float32(0.1)
    scale, low = search.scale_min_search(x, w, n, nmax, first, delta, steps, absolute, codes)
    store(out, scale)
    store(out + 64, low)


def groups(rng, n):
    """Return (16, n) values of several kinds and weights for them."""
    x = bell(rng, LANES, n) * power(rng.integers(-20, 10, (LANES, 1)))
    x[1], x[2] = np.abs(x[1]), -np.abs(x[2])
    x[3], x[4] = 0, np.float32(0.25)
    x[5] = np.round(x[5] * 2)
    w = np.abs(bell(rng, LANES, n)) + power(np.array([-10]))
    return x, w.astype(np.float32)


def lanes(rows):
    """Return the address of (16, n) as [position][lane], and what keeps it alive."""
    columns = np.ascontiguousarray(rows.T)
    return columns.ctypes.data, columns


def outputs(n):
    """Return two vectors of results and codes [position][lane]."""
    return np.zeros((2, LANES), np.float32), np.zeros((n, LANES), np.uint8)


def same_bits(a, b):
    return np.array_equal(np.float32(a).view(np.uint32), np.float32(b).view(np.uint32))


@pytest.mark.parametrize("n, nmax, finite", [(16, 4, True), (16, 32, False), (32, 8, True)])
def test_scale_search(rng, n, nmax, finite):
    x, w = groups(rng, n)
    out, codes = outputs(n)
    (at_x, _x), (at_w, _w) = lanes(x), lanes(w)
    _scale(at_x, at_w, n, nmax, finite, out.ctypes.data, codes.ctypes.data)
    for i in range(LANES):
        scale, expected = plain.scale_search(x[i], w[i], nmax)
        assert same_bits(out[0, i], scale), i
        assert np.array_equal(codes[:, i], expected), i


def test_descent_search(rng):
    x, _ = groups(rng, 64)
    out = np.zeros((4, LANES), np.float32)
    codes = np.zeros((64, LANES), np.uint8)
    at_x, _x = lanes(x)
    _descent(at_x, 4, out.ctypes.data, codes.ctypes.data)
    for i in range(LANES):
        for g in range(4):
            scale, expected = plain.descent_search(x[i, 16 * g : 16 * g + 16], 4)
            assert same_bits(out[g, i], scale), (i, g)
            assert np.array_equal(codes[16 * g : 16 * g + 16, i], expected), (i, g)


@pytest.mark.parametrize("n, nmax", [(8, 63), (16, 15), (32, 4)])
@pytest.mark.parametrize("signed", [False, True])
def test_positive_search(rng, n, nmax, signed):
    x, w = groups(rng, n)
    x = np.abs(x)
    if signed:  # as where a lattice type flips the sign of what counts least
        x[:, :: n // 4] *= np.float32(-0.5)
    out, codes = outputs(n)
    (at_x, _x), (at_w, _w) = lanes(x), lanes(w)
    _positive(at_x, at_w, n, nmax, out.ctypes.data, codes.ctypes.data)
    for i in range(LANES):
        scale, expected = plain.positive_search(x[i], w[i], nmax)
        assert same_bits(out[0, i], scale), i
        assert np.array_equal(codes[:, i], expected), i


@pytest.mark.parametrize("n, nmax, first, absolute", [(32, 15, -1.0, False), (16, 3, -0.5, True)])
def test_scale_min_search(rng, n, nmax, first, absolute):
    x, w = groups(rng, n)
    out, codes = outputs(n)
    (at_x, _x), (at_w, _w) = lanes(x), lanes(w)
    first = np.float32(first)
    _scale_min(at_x, at_w, n, nmax, first, 12, absolute, out.ctypes.data, codes.ctypes.data)
    for i in range(LANES):
        args = (first, np.float32(0.1), 12, absolute)
        scale, low, expected = plain.scale_min_search(x[i], w[i], nmax, *args)
        assert same_bits(out[0, i], scale), i
        assert same_bits(out[1, i], low), i
        assert np.array_equal(codes[:, i], expected), i


def test_search_beats_plain_rounding(rng):
    """The searched scale explains more of a group than the extreme value's does."""
    x, w = groups(rng, 32)
    out, codes = outputs(32)
    (at_x, _x), (at_w, _w) = lanes(x), lanes(w)
    _scale(at_x, at_w, 32, 8, True, out.ctypes.data, codes.ctypes.data)

    def error(scale, levels):
        return (w * (x.T - scale * levels).T.astype(np.float64) ** 2).sum(1)

    extreme = x[np.arange(LANES), np.abs(x).argmax(1)]
    plain_scale = np.where(extreme == 0, 1, extreme / np.float32(-8))
    rounded = np.clip(np.rint(x.T / plain_scale), -8, 7)
    searched = error(out[0], codes.astype(np.float32) - 8)
    assert (searched <= error(plain_scale, rounded) * (1 + 1e-6)).all()
    assert searched.sum() < 0.98 * error(plain_scale, rounded).sum()

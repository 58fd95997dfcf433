"""Encoders of the types whose codes name vectors of magnitudes: IQ2_XXS IQ2_XS IQ2_S IQ3_XXS IQ3_S.

Tries scales per group of 16 or 32 weights, each with the vectors nearest to the group, then rounds
the scales to 4 bits. Source: ggml, quantize_row_iq2_xxs_impl and its like.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import float32, int32, int64

from ggq.jit import njit, njit_cached
from ggq.quants.encoders.lattice_codes import N, fill, put_codes, round_scales
from ggq.quants.encoders.neighbours import nearest, neighbours
from ggq.quants.encoders.search import (
    at,
    clamp,
    full,
    larger,
    nearest_int,
    positive_search,
    put,
    sum_of_squares,
)
from ggq.quants.encoders.slabs import LANES, gather, point_lanes
from ggq.quants.lattices import LatticeCodes, Search
from ggq.simd import (
    any_lane,
    convert,
    f32x16,
    i32x16,
    load,
    select,
    splat,
    sqrt,
    stack,
    store,
    vector_constant,
    zeros,
)

TOP = 31  # 2 * 15 + 1: the largest scale code as ggml counts


def search(kind: Any, how: Search, x: np.ndarray, importance: np.ndarray | None) -> LatticeCodes:
    """Return the fields that ggml would store for float32 rows ``x``."""
    elements = 4 if how.lattice.startswith("IQ3") else 8
    settings = (how.group, how.tries, how.refine, how.even, how.fitted, how.wiped)
    numbers = (how.step, how.limit, how.mean, how.plain or 0, how.factor)
    settings += tuple(map(np.float32, numbers))
    counts = N // elements, N // how.group
    return fill(_kernel(elements), kind, x, importance, neighbours(how.lattice), *counts, settings)


@njit
def _weigh(x, importance, weights, roots, n, mean, plain):
    """Store weights and their square roots; weights come in as importance where there is some."""
    for i in range(n):
        v = at(x, i)
        if importance:
            w = at(weights, i) * sqrt(mean + v * v)
        else:
            w = v * v
            if plain > 0:
                w = full(plain) * mean + w
        put(weights, i, w)
        put(roots, i, sqrt(w))


@njit
def _split_signs(x, w, signs, n, even):
    """Replace values by magnitudes and store a byte of signs per 8 of them; return the largest.

    Where the number of signs must be even and is not, the least important value flips its sign.
    """
    zero, one = zeros(f32x16), splat(1, i32x16)
    for k in range(n // 8):
        bits, odd = zeros(i32x16), zeros(i32x16)
        v = at(x, 8 * k)
        least, place_of_least = at(w, 8 * k) * v * v, zeros(i32x16)
        for i in range(8):
            v = at(x, 8 * k + i)
            error = at(w, 8 * k + i) * v * v
            below = error < least
            least = select(below, error, least)
            place_of_least = select(below, splat(i, i32x16), place_of_least)
            bit = select(v >= zero, zeros(i32x16), one)
            put(x, 8 * k + i, select(v >= zero, v, -v))
            bits = bits | (bit << splat(i, i32x16))
            odd = odd ^ bit
        if even:
            for i in range(8):
                flip = (odd == one) & (place_of_least == splat(i, i32x16))
                v = at(x, 8 * k + i)
                put(x, 8 * k + i, select(flip, -v, v))
            bits = bits ^ (odd << place_of_least)
        store(signs + 64 * k, bits)
    largest = at(x, 0)
    for i in range(1, n):
        largest = larger(largest, at(x, i))
    return largest


# Values of the levels: 2 level + 1, for either number of bits.
_four_levels = vector_constant(f32x16, [1, 3, 5, 7] * 4)
_eight_levels = vector_constant(f32x16, [1, 3, 5, 7, 9, 11, 13, 15] * 2)


@njit
def _vectors(x, roots, n, inverse, scale, words, found, lists, runs, elements):
    """Store the word of each rounded vector and of the vector of the lattice nearest to it."""
    bits = 2 if elements == 8 else 3
    top = splat(2 if elements == 8 else 7, i32x16)
    scales = stack(64)
    store(scales, scale)
    half, one = full(np.float32(0.5)), full(np.float32(1))
    for k in range(n // elements):
        word = zeros(i32x16)
        for i in range(elements):
            level = nearest_int(half * (inverse * at(x, elements * k + i) - one))
            word = word | (clamp(level, zeros(i32x16), top) << splat(bits * i, i32x16))
        store(words + 64 * k, word)
        values = _four_levels() if elements == 8 else _eight_levels()
        for lane in range(LANES):
            first = 64 * elements * k + 4 * lane
            levels = full(load(scales + 4 * lane, float32)) * values
            word = int64(load(words + 64 * k + 4 * lane, int32))
            word = nearest(lists, runs, word, x + first, roots + first, levels, elements, bits)
            store(found + 64 * k + 4 * lane, int32(word))


@njit
def _moments(x, w, n, words, elements):
    """Return sum(w x q) and sum(w q q) for the values q = 2 level + 1 of ``words``."""
    bits = 2 if elements == 8 else 3
    mask, one = splat((1 << bits) - 1, i32x16), splat(1, i32x16)
    products, squares = zeros(f32x16), zeros(f32x16)
    for k in range(n // elements):
        word = load(words + 64 * k, i32x16)
        for i in range(elements):
            level = (word >> splat(bits * i, i32x16)) & mask
            q = convert(level + level + one, f32x16)
            weight = at(w, elements * k + i)
            products = products + weight * at(x, elements * k + i) * q
            squares = squares + weight * q * q
    return products, squares


@njit
def _best_scale(x, w, roots, n, start, scale, tries, step, words, beside, lists, runs, elements):
    """Try 2 ``tries`` + 1 inverse scales around ``start``; return the scale that explains most.

    Stores its vectors' words and, under ``beside``, numbers that are zero where the rounded vector
    was in the lattice. ``scale`` and what is stored already stay where no try explains anything.
    """
    raw, found = stack(512), stack(512)
    top = np.float32(5 if elements == 8 else 15)
    best = zeros(f32x16)
    for i in range(-tries, tries + 1):
        inverse = full(top + np.float32(i) * step) / start
        _vectors(
            x, roots, n, inverse, full(np.float32(1)) / inverse, raw, found, lists, runs, elements
        )
        products, squares = _moments(x, w, n, found, elements)
        better = (squares > zeros(f32x16)) & (products * products > best * squares)
        ratio = products / squares
        scale = select(better, ratio, scale)
        best = select(better, ratio * products, best)
        for k in range(n // elements):
            word = load(found + 64 * k, i32x16)
            store(words + 64 * k, select(better, word, load(words + 64 * k, i32x16)))
            other = load(raw + 64 * k, i32x16) ^ word
            store(beside + 64 * k, select(better, other, load(beside + 64 * k, i32x16)))
    return scale


@njit
def _refined(x, w, roots, n, scale, refine, words, beside, lists, runs, elements):
    """Search vectors again with the best scale (see `Search.refine`); return the scale they ask."""
    zero = zeros(i32x16)
    count = n // elements
    outside = zero
    for k in range(count):
        outside = outside | load(beside + 64 * k, i32x16)
    active = scale > zeros(f32x16)
    if refine < 2:
        active = active & (outside != zero)
    if not any_lane(active):
        return scale
    raw, found = stack(512), stack(512)
    _vectors(x, roots, n, full(np.float32(1)) / scale, scale, raw, found, lists, runs, elements)
    for k in range(count):
        taken = active
        if refine == 0:
            taken = active & (load(beside + 64 * k, i32x16) != zero)
        word = select(taken, load(found + 64 * k, i32x16), load(words + 64 * k, i32x16))
        store(words + 64 * k, word)
    products, squares = _moments(x, w, n, words, elements)
    return select(active & (squares > zeros(f32x16)), products / squares, scale)


@njit
def _group(x, w, roots, n, signs, words, settings, lists, runs, elements):
    """Return the scale of a group, not negative, and store its words and signs."""
    tries, refine, even, fitted, step, limit = settings
    beside = stack(512)
    zero = zeros(f32x16)
    start = _split_signs(x, w, signs, n, even)
    empty = start < full(limit)
    for k in range(n // elements):
        store(words + 64 * k, zeros(i32x16))
        store(beside + 64 * k, splat(1 if refine == 1 else 0, i32x16))
    if fitted:
        unused = stack(512)
        scale = positive_search(x, w, n, 4, unused)
        start = scale * full(np.float32(3))
        empty = empty | (start <= zero)
    else:
        scale = start / full(np.float32(5 if elements == 8 else 15))
    scale = _best_scale(
        x, w, roots, n, start, scale, tries, step, words, beside, lists, runs, elements
    )
    scale = _refined(x, w, roots, n, scale, refine, words, beside, lists, runs, elements)
    flipped = select(scale < zero, splat(255, i32x16), zeros(i32x16))
    for k in range(n // elements):
        word = load(words + 64 * k, i32x16)
        store(words + 64 * k, select(empty, zeros(i32x16), word))
    for k in range(n // 8):
        bits = load(signs + 64 * k, i32x16) ^ flipped
        store(signs + 64 * k, select(empty, zeros(i32x16), bits))
    return select(empty, zero, select(scale < zero, -scale, scale))


@njit
def _wipe(wiped, values, n):
    """Make ``n`` integer vectors zero where ``wiped`` holds."""
    for i in range(n):
        store(values + 64 * i, select(wiped, zeros(i32x16), load(values + 64 * i, i32x16)))


@cache
def _kernel(elements):
    """Return the compiled search for vectors of so many elements; the loops over them unroll."""

    @njit_cached
    def encode(
        x, importance, stride, rows, n, d, codes, signs, scales, code_of, lists, runs,
        group, tries, refine, even, fitted, wiped, step, limit, mean_factor, plain, factor,
    ):  # fmt: skip
        sources, weighers = stack(128), stack(128)
        values, weights, roots = stack(16384), stack(2048), stack(2048)
        words, bits, found, units = stack(4096), stack(2048), stack(1024), stack(64)
        settings = (tries, refine, even, fitted, step, limit)
        per_row, last, groups = n // N, rows * (n // N) - 1, N // group
        for block in range(0, last + 1, LANES):
            point_lanes(sources, x, 4 * n, 4 * N, block, last, per_row)
            gather(sources, int64(0), N, values)
            if importance:
                point_lanes(weighers, importance, stride, 4 * N, block, last, per_row)
            mean = full(mean_factor) * sum_of_squares(values, N) / full(np.float32(N))
            largest = zeros(f32x16)
            for g in range(groups):
                v = values + 64 * group * g
                if importance:
                    gather(weighers, int64(4 * group * g), group, weights)
                _weigh(v, importance, weights, roots, group, mean, plain)
                scale = _group(
                    v, weights, roots, group, bits + 8 * group * g,
                    words + 64 * (group // elements) * g, settings, lists, runs, elements,
                )  # fmt: skip
                put(found, g, scale)
                largest = larger(largest, scale)
            unit = largest / full(np.float32(TOP))
            round_scales(found, groups, unit, 15)
            if wiped:
                nothing = largest == zeros(f32x16)
                _wipe(nothing, words, N // elements)
                _wipe(nothing, bits, N // 8)
            store(units, unit * full(factor))
            put_codes(
                block, last, (d, codes, signs, scales), code_of,
                units, words, N // elements, bits, found, groups,
            )  # fmt: skip

    return encode

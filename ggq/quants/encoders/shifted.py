"""Encoders of the types whose vectors hold -1, 0 and 1 and are shifted by an eighth: IQ1_S IQ1_M.

Sorts a group's weights, tries all places where levels change, takes the vectors of the lattice
nearest to the best split, then rounds the scales to 3 bits. Source: ggml, quantize_row_iq1_s_impl
and quantize_row_iq1_m_impl.
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
    full,
    larger,
    peak,
    put,
    sum_of_squares,
)
from ggq.quants.encoders.slabs import LANES, gather, point_lanes
from ggq.quants.lattices import LatticeCodes
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

TOP = 15  # 2 * 7 + 1: the largest scale code as ggml counts
_FLOAT_MAX = np.float32(3.4028234663852886e38)
_PLUS = np.array([-0.875, 0.125, 1.125], np.float32)
_MINUS = np.array([-1.125, -0.125, 0.875], np.float32)
_plus = vector_constant(f32x16, [*map(float, _PLUS), 0.0] * 4)
_minus = vector_constant(f32x16, [*map(float, _MINUS), 0.0] * 4)


def search(kind: Any, x: np.ndarray, importance: np.ndarray | None) -> LatticeCodes:
    """Return the fields that ggml would store; signs: whether a vector's shift is negative."""
    settings = np.float32(kind.limit), np.float32(kind.factor)
    counts = N // 8, N // kind.group
    kernel = _kernel(kind.group)
    return fill(kernel, kind, x, importance, neighbours("IQ1_S"), *counts, settings)


@njit
def _sort(x, w, order, n):
    """Sort ``n`` values, weights and positions by value, equal ones by position (Batcher)."""
    width = 1
    while width < n:
        step = width
        while step >= 1:
            for start in range(step % width, n - step, 2 * step):
                for a in range(start, min(start + step, n - step)):
                    if a // (2 * width) == (a + step) // (2 * width):
                        _order(x, w, order, a, a + step)
            step //= 2
        width *= 2


@njit
def _order(x, w, order, a, b):
    xa, xb, wa, wb = at(x, a), at(x, b), at(w, a), at(w, b)
    ia, ib = load(order + 64 * a, i32x16), load(order + 64 * b, i32x16)
    swap = (xa > xb) | ((xa == xb) & (ia > ib))
    put(x, a, select(swap, xb, xa))
    put(x, b, select(swap, xa, xb))
    put(w, a, select(swap, wb, wa))
    put(w, b, select(swap, wa, wb))
    store(order + 64 * a, select(swap, ib, ia))
    store(order + 64 * b, select(swap, ia, ib))


@njit
def _keep(best, products, squares, split):
    """Replace the best (scale, score, split at ``best``) where these moments explain more."""
    score = at(best, 1)
    better = (squares > zeros(f32x16)) & (products * products > score * squares)
    if any_lane(better):
        ratio = products / squares
        put(best, 0, select(better, ratio, at(best, 0)))
        put(best, 1, select(better, ratio * products, score))
        old = load(best + 128, i32x16)
        store(best + 128, select(better, splat(split, i32x16), old))


@njit
def _one_shift(x, w, order, n, best):
    """Try all splits of sorted values with either shift; a split has i1, i2 and shift in bytes."""
    sums, weights = stack(2176), stack(2176)
    put(sums, 0, zeros(f32x16))
    put(weights, 0, zeros(f32x16))
    for i in range(n):
        put(sums, i + 1, at(sums, i) + at(w, i) * at(x, i))
        put(weights, i + 1, at(weights, i) + at(w, i))
    for i1 in range(n + 1):
        low, low_weight = at(sums, i1), at(weights, i1)
        for i2 in range(i1, n + 1):
            middle, high = at(sums, i2) - low, at(sums, n) - at(sums, i2)
            middle_weight = at(weights, i2) - low_weight
            high_weight = at(weights, n) - at(weights, i2)
            for minus in range(2):
                q0 = full(_MINUS[0]) if minus else full(_PLUS[0])
                q1 = full(_MINUS[1]) if minus else full(_PLUS[1])
                q2 = full(_MINUS[2]) if minus else full(_PLUS[2])
                products = low * q0 + middle * q1 + high * q2
                squares = low_weight * q0 * q0 + middle_weight * q1 * q1 + high_weight * q2 * q2
                _keep(best, products, squares, i1 + 256 * i2 + 65536 * 3 * minus)


@njit
def _two_shifts(x, w, order, n, best):
    """The same with a shift for each half of the group: the second half's is the lower bit."""
    sums, weights = stack(2176), stack(2176)  # of the first half; the second's from 1088 on
    for half in range(2):
        put(sums + 1088 * half, 0, zeros(f32x16))
        put(weights + 1088 * half, 0, zeros(f32x16))
    for i in range(n):
        v, weight = at(x, i), at(w, i)
        second = load(order + 64 * i, i32x16) >= splat(n // 2, i32x16)
        for half in range(2):
            s, t = sums + 1088 * half, weights + 1088 * half
            own = second if half else ~second
            put(s, i + 1, select(own, at(s, i) + weight * v, at(s, i)))
            put(t, i + 1, select(own, at(t, i) + weight, at(t, i)))
    products, squares = stack(256), stack(256)  # [half][shift]
    for i1 in range(n + 1):
        for i2 in range(i1, n + 1):
            for half in range(2):
                s, t = sums + 1088 * half, weights + 1088 * half
                both = at(s, i1) + at(s, i2)
                for minus in range(2):
                    q0 = _MINUS[0] if minus else _PLUS[0]
                    q1 = _MINUS[1] if minus else _PLUS[1]
                    q2 = _MINUS[2] if minus else _PLUS[2]
                    first, last = q0 * q0 - q1 * q1, q1 * q1 - q2 * q2
                    put(products, 2 * half + minus, at(s, n) * full(q2) - both)
                    square = at(t, n) * full(q2) * full(q2) + at(t, i1) * full(first)
                    put(squares, 2 * half + minus, square + at(t, i2) * full(last))
            for shifts in range(4):
                a, b = shifts // 2, 2 + shifts % 2
                _keep(
                    best,
                    at(products, a) + at(products, b),
                    at(squares, a) + at(squares, b),
                    i1 + 256 * i2 + 65536 * shifts,
                )


@njit
def _place(order, split, negative, words, n):
    """Store the words of the levels that a split of the sorted weights gives them."""
    one, byte = splat(1, i32x16), splat(255, i32x16)
    i1, i2 = split & byte, (split >> splat(8, i32x16)) & byte
    for k in range(n // 8):
        store(words + 64 * k, zeros(i32x16))
    for i in range(n):
        here = splat(i, i32x16)
        level = select(here >= i1, one, zeros(i32x16)) + select(here >= i2, one, zeros(i32x16))
        level = select(negative, splat(2, i32x16) - level, level)
        target = load(order + 64 * i, i32x16)
        bits = level << ((target & splat(7, i32x16)) << one)
        for k in range(n // 8):
            own = (target >> splat(3, i32x16)) == splat(k, i32x16)
            word = load(words + 64 * k, i32x16)
            store(words + 64 * k, word | select(own, bits, zeros(i32x16)))


@njit
def _values(word, minus, i):
    """Return the values of element ``i`` of words: level - 1 and an eighth more or less."""
    level = convert((word >> splat(2 * i, i32x16)) & splat(3, i32x16), f32x16)
    shift = select(minus != zeros(i32x16), full(np.float32(-0.125)), full(np.float32(0.125)))
    return level - full(np.float32(1)) + shift


@njit
def _group(x, w, n, limit, words, minus, lists, runs):
    """Return the scale of a group; store its words and which shifts are negative."""
    xs, ws, order, best = stack(2048), stack(2048), stack(2048), stack(192)
    for i in range(n):
        put(xs, i, at(x, i))
        put(ws, i, at(w, i))
        store(order + 64 * i, splat(i, i32x16))
    _sort(xs, ws, order, n)
    largest = peak(x, n)[1]
    put(best, 0, largest)
    put(best, 1, full(-_FLOAT_MAX))
    store(best + 128, splat(-1, i32x16))
    if n == 32:
        _one_shift(xs, ws, order, n, best)
    else:
        _two_shifts(xs, ws, order, n, best)
    scale, split = at(best, 0), load(best + 128, i32x16)
    empty = (largest < full(limit)) | (split < zeros(i32x16))
    negative = scale < zeros(f32x16)
    _place(order, split, negative, words, n)
    scale = select(negative, -scale, scale)
    flip = select(negative, splat(1, i32x16), zeros(i32x16))
    for k in range(n // 8):
        bit = (split >> splat(17 - k if n == 16 else 16, i32x16)) & splat(1, i32x16)
        store(minus + 64 * k, select(empty, zeros(i32x16), bit ^ flip))
    scale = _on_lattice(x, w, n, scale, words, minus, lists, runs)
    for k in range(n // 8):
        word = load(words + 64 * k, i32x16)
        store(words + 64 * k, select(empty, zeros(i32x16), word))
    return select(empty, zeros(f32x16), scale)


@njit
def _on_lattice(x, w, n, scale, words, minus, lists, runs):
    """Replace words by the nearest of the lattice; return the scale that the new ones ask for."""
    scales = stack(64)
    store(scales, scale)
    products, squares = zeros(f32x16), zeros(f32x16)
    moved = zeros(i32x16)
    for k in range(n // 8):
        old = load(words + 64 * k, i32x16)
        for lane in range(LANES):
            first, here = 512 * k + 4 * lane, 64 * k + 4 * lane
            levels = _minus() if load(minus + here, int32) else _plus()
            levels = full(load(scales + 4 * lane, float32)) * levels
            word = int64(load(words + here, int32))
            word = nearest(lists, runs, word, x + first, w + first, levels, 8, 2)
            store(words + here, int32(word))
        word = load(words + 64 * k, i32x16)
        moved = moved | (word ^ old)
        for i in range(8):
            q = _values(word, load(minus + 64 * k, i32x16), i)
            weight = at(w, 8 * k + i) * q
            products = products + weight * at(x, 8 * k + i)
            squares = squares + weight * q
    zero = zeros(f32x16)
    better = (moved != zeros(i32x16)) & (products > zero) & (squares > zero)
    return select(better, products / squares, scale)


@njit
def _fitted(x, w, words, minus, levels, group, d):
    """Return the block's scale that fits all weights best, ``d`` where none does."""
    products, squares = zeros(f32x16), zeros(f32x16)
    for k in range(N // 8):
        word, shift = load(words + 64 * k, i32x16), load(minus + 64 * k, i32x16)
        level = load(levels + 64 * (8 * k // group), i32x16)
        scale = convert(level + level + splat(1, i32x16), f32x16)
        for i in range(8):
            q = _values(word, shift, i) * scale
            weight = at(w, 8 * k + i) * q
            products = products + weight * at(x, 8 * k + i)
            squares = squares + weight * q
    return select(squares > zeros(f32x16), products / squares, d)


@cache
def _kernel(group):
    """Return the compiled search for groups of 32 (one shift each) or 16 (two)."""

    @njit_cached
    def encode(
        x, importance, stride, rows, n, d, codes, signs, scales, code_of, lists, runs,
        limit, factor,
    ):  # fmt: skip
        sources, weighers = stack(128), stack(128)
        values, weights = stack(16384), stack(16384)
        words, minus, found, units = stack(2048), stack(2048), stack(1024), stack(64)
        per_row, last = n // N, rows * (n // N) - 1
        for block in range(0, last + 1, LANES):
            point_lanes(sources, x, 4 * n, 4 * N, block, last, per_row)
            gather(sources, int64(0), N, values)
            if importance:
                point_lanes(weighers, importance, stride, 4 * N, block, last, per_row)
                gather(weighers, int64(0), N, weights)
            mean = full(np.float32(2)) * sum_of_squares(values, N) / full(np.float32(N))
            for i in range(N):
                v = at(values, i)
                weight = v * v
                if importance:
                    weight = at(weights, i) * sqrt(mean + weight)
                put(weights, i, weight)
            largest = zeros(f32x16)
            for g in range(N // group):
                first, vector = 64 * group * g, 8 * group * g
                scale = _group(
                    values + first, weights + first, group, limit,
                    words + vector, minus + vector, lists, runs,
                )  # fmt: skip
                put(found, g, scale)
                largest = larger(largest, scale)
            unit = largest / full(np.float32(TOP))
            round_scales(found, N // group, unit, 7)
            if group == 16:
                unit = _fitted(values, weights, words, minus, found, group, unit)
            nothing = largest == zeros(f32x16)
            store(units, select(nothing, zeros(f32x16), unit * full(factor)))
            for i in range(N // 8):
                bit = load(minus + 64 * i, i32x16)
                store(minus + 64 * i, select(nothing, zeros(i32x16), bit))
            put_codes(
                block, last, (d, codes, signs, scales), code_of,
                units, words, N // 8, minus, found, N // group,
            )  # fmt: skip

    return encode

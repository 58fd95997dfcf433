"""Encoders of the types whose codes name entries of a table: IQ4_NL, IQ4_XS and MXFP4.

Source: quantize_row_iq4_nl_impl and quantize_row_mxfp4_ref of ggml, one block per vector lane.
"""

import math
from typing import Any

import numpy as np
from numba import float32, int64

from ggq.jit import njit, njit_cached
from ggq.quants.encoders.search import (
    TINY,
    at,
    full,
    nearest_clamped,
    peak,
    put,
    put_codes,
    sum_of_squares,
)
from ggq.quants.encoders.slabs import (
    LANES,
    gather,
    point_lanes,
    put_bytes,
    put_half,
    put_nibbles,
    run,
    scatter,
)
from ggq.quants.tables import CURVE, E2M1
from ggq.simd import (
    convert,
    f32x16,
    fabs,
    i32x16,
    load,
    select,
    splat,
    sqrt,
    stack,
    store,
    u8x16,
    zeros,
)

_STEPS = np.diff(CURVE)
_MIDDLES = (CURVE[1:] + CURVE[:-1]) / np.float32(2)
_BOTTOM = int(CURVE[0])
_TRIES = 7


def curve(kind: Any, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """Return blocks of IQ4_NL or IQ4_XS."""
    return run(_curve, kind, x, importance, kind.block_size // 32, kind.block_bytes)


def e2m1(kind: Any, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """Return blocks of MXFP4."""
    return run(_mxfp4, kind, x, importance)


@njit
def _index(value):
    """Return the entry of CURVE nearest to ``value``; the upper one of two, the last for NaN."""
    index = zeros(i32x16)
    one = splat(1, i32x16)
    for k in range(15):
        index = index + select(value < full(_MIDDLES[k]), zeros(i32x16), one)
    return index


@njit
def _entry(value):
    """Return the value of that entry."""
    entry = full(np.float32(_BOTTOM))
    for k in range(15):
        entry = entry + select(value < full(_MIDDLES[k]), zeros(f32x16), full(_STEPS[k]))
    return entry


@njit
def _moments(x, w, inverse):
    products, squares = zeros(f32x16), zeros(f32x16)
    for i in range(32):
        v = at(x, i)
        q = _entry(inverse * v)
        wq = at(w, i) * q
        products = products + wq * v
        squares = squares + wq * q
    return products, squares


@njit
def _curve_search(x, w):
    """Return the best of 16 scales of a group of 32; zero for a group of zeros."""
    zero = zeros(f32x16)
    extreme, magnitude = peak(x, 32)
    inverse = full(np.float32(1)) / (-extreme / full(np.float32(_BOTTOM)))
    products, squares = _moments(x, w, inverse)
    scale = select(squares > zero, products / squares, zero)
    best = scale * products
    for step in range(-_TRIES, _TRIES + 1):
        inverse = full(np.float32(step + _BOTTOM)) / extreme
        products, squares = _moments(x, w, inverse)
        better = (squares > zero) & (products * products > best * squares)
        ratio = products / squares
        scale, best = select(better, ratio, scale), select(better, ratio * products, best)
    return select(magnitude < full(TINY), zero, scale)


@njit
def _inverse_or_zero(d):
    zero = zeros(f32x16)
    return select(d != zero, full(np.float32(1)) / d, zero)


@njit_cached
def _curve(x, importance, blocks, stride, rows, n, groups, block_bytes):
    """Encode IQ4_NL (one group a block) and IQ4_XS (eight, with 6-bit scales around 32)."""
    sources, targets, weighers = stack(128), stack(128), stack(128)
    values, weights, codes, image = stack(16384), stack(2048), stack(4096), stack(2176)
    found, rounded = stack(512), stack(256)
    size = 32 * groups
    per_row, last = n // size, rows * (n // size) - 1
    for block in range(0, last + 1, LANES):
        point_lanes(sources, x, 4 * n, 4 * size, block, last, per_row)
        point_lanes(targets, blocks, block_bytes * per_row, block_bytes, block, last, per_row)
        gather(sources, int64(0), size, values)
        if importance != 0:
            point_lanes(weighers, importance, stride, 4 * size, block, last, per_row)
        mean = sum_of_squares(values, size) * full(np.float32(2) / np.float32(size))
        for j in range(groups):
            v = values + 2048 * j
            if importance != 0:
                gather(weighers, int64(128 * j), 32, weights)
            for i in range(32):
                square = at(v, i) * at(v, i)
                if importance != 0:
                    square = at(weights, i) * sqrt(mean + square)
                put(weights, i, square)
            put(found, j, _curve_search(v, weights))
        d = at(found, 0)
        if groups > 1:
            d = -peak(found, groups)[0] / full(np.float32(32))
        put_half(image, 0, d)
        inverse = _inverse_or_zero(d)
        for j in range(groups):
            if groups > 1:
                level = nearest_clamped(inverse * at(found, j), -32, 31)
                put_codes(rounded, j, convert(level, i32x16) + splat(32, i32x16))
                inverse_j = _inverse_or_zero(d * level)
            else:
                inverse_j = inverse
            for i in range(32):
                put_codes(codes, 32 * j + i, _index(inverse_j * at(values, 32 * j + i)))
            put_nibbles(image, block_bytes - 16 * groups + 16 * j, codes + 512 * j, 32)
        if groups > 1:
            _put_scales(image, rounded)
        scatter(image, targets, block_bytes)


@njit
def _put_scales(image, rounded):
    """Store 8 scales of 6 bits: the high bits in a 16-bit word, then pairs of low nibbles."""
    for byte in range(2):
        high = zeros(u8x16)
        for i in range(4):
            scale = load(rounded + LANES * (4 * byte + i), u8x16)
            high = high | ((scale >> splat(4, u8x16)) << splat(2 * i, u8x16))
        put_bytes(image, 2 + byte, high)
    for i in range(4):
        put_nibbles(image, 4 + i, rounded + 2 * LANES * i, 2)


@njit_cached
def _mxfp4(x, importance, blocks, stride, rows, n):
    """Encode MXFP4: the exponent of the extreme value, then the first of the nearest entries."""
    sources, targets = stack(128), stack(128)
    values, codes, image, extremes = stack(2048), stack(512), stack(272), stack(64)
    per_row, last = n // 32, rows * (n // 32) - 1
    for block in range(0, last + 1, LANES):
        point_lanes(sources, x, 4 * n, 128, block, last, per_row)
        point_lanes(targets, blocks, 17 * per_row, 17, block, last, per_row)
        gather(sources, int64(0), 32, values)
        store(extremes, peak(values, 32)[1])
        for i in range(LANES):
            magnitude, exponent = load(extremes + 4 * i, float32), 0
            if magnitude > 0:
                # ggml takes the floor of log2 rounded to float32.
                exponent = int64(math.floor(float32(math.log2(magnitude)))) + 125
            exponent &= 255
            store(image + i, np.uint8(exponent))
            store(extremes + 4 * i, float32(math.ldexp(1.0, exponent - 128)))
        scale = at(extremes, 0)
        for i in range(32):
            v = at(values, i)
            error, index = fabs(full(E2M1[0]) * scale - v), zeros(i32x16)
            for k in range(1, 16):
                other = fabs(full(E2M1[k]) * scale - v)
                better = other < error
                error = select(better, other, error)
                index = select(better, splat(k, i32x16), index)
            put_codes(codes, i, index)
        put_nibbles(image, 1, codes, 32)
        scatter(image, targets, 17)

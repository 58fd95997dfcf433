"""Encoders of the types with 256 weights a block: Q2_K Q3_K Q4_K Q5_K Q6_K.

Each searches scales per group of 16 or 32 weights, rounds those to a few bits under a
half-precision factor, and takes the codes again from the rounded scales, except where these are
zero. Source: ggml, quantize_row_*_K_ref without importance and quantize_row_*_K_impl with it.
"""

from typing import Any

import numpy as np
from numba import int64

from ggq.jit import njit, njit_cached
from ggq.quants.encoders.search import (
    TINY,
    at,
    descent_search,
    full,
    larger,
    nearest_clamped,
    nearest_int,
    peak,
    positive_search,
    put,
    put_codes,
    scale_min_search,
    scale_search,
    smaller,
    sum_of,
    sum_of_squares,
)
from ggq.quants.encoders.slabs import (
    LANES,
    code,
    gather,
    point_lanes,
    put_bytes,
    put_half,
    put_nibbles,
    put_planes,
    run,
    scatter,
)
from ggq.simd import (
    convert,
    f32x16,
    fabs,
    i8x16,
    i32x16,
    select,
    splat,
    sqrt,
    stack,
    u8x16,
    zeros,
)

N = 256


def affine(kind: Any, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """Return blocks of a type with scales and minimums: Q2_K, Q4_K, Q5_K."""
    bits = kind.levels.bit_length() - 1
    return run(_affine, kind, x, importance, bits, kind.block_bytes)


def symmetric_3(kind: Any, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """Return blocks of Q3_K."""
    return run(_symmetric_3, kind, x, importance)


def symmetric_6(kind: Any, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """Return blocks of Q6_K."""
    return run(_symmetric_6, kind, x, importance)


@njit
def _weigh(values, weights, n, mean_square):
    """Replace importance by importance * sqrt(mean square + x^2); return the sum."""
    for i in range(n):
        v = at(values, i)
        put(weights, i, at(weights, i) * sqrt(mean_square + v * v))
    return sum_of(weights, n)


@njit
def _weigh_plainly(values, weights, n, bits):
    """Store |x| for Q2_K, else the group's root mean square + |x|."""
    base = zeros(f32x16)
    if bits != 2:
        base = sqrt(sum_of_squares(values, n) / full(np.float32(n)))
    for i in range(n):
        put(weights, i, base + fabs(at(values, i)))


@njit
def _round_to_top(groups, n, top, codes):
    """Round ``n`` non-negative scales to codes 0 .. top of their largest; return the unit."""
    zero, limit = zeros(f32x16), full(np.float32(top))
    largest = zero
    for i in range(n):
        largest = larger(at(groups, i), largest)
    inverse = select(largest > zero, limit / largest, zero)
    low_byte = splat(255, i32x16)
    for i in range(n):
        l = nearest_int(inverse * at(groups, i)) & low_byte  # noqa: E741
        put_codes(codes, i, smaller(l, splat(top, i32x16)))
    return largest / limit


@njit
def _recode(values, codes, n, scale, offset, low, high):
    """Take the codes again as (x + offset) / scale - low where the scale is not zero."""
    empty = scale == zeros(f32x16)
    base = splat(low, i32x16)
    for i in range(n):
        new = nearest_clamped((at(values, i) + offset) / scale, low, high)
        new = convert(new, i32x16) - base
        put_codes(codes, i, select(empty, convert(code(codes, i), i32x16), new))


@njit
def _as_float(codes, i):
    return convert(convert(code(codes, i), i32x16), f32x16)


@njit
def _affine_settings(bits, weighted):
    """Return group size, largest scale code, and first, stride and number of the search's steps."""
    group = 16 if bits == 2 else 32
    top = 15 if bits == 2 else 63
    if weighted:
        return group, top, np.float32(-0.9), np.float32(0.05), 36
    first = np.float32(-1.0) if bits == 4 else np.float32(-0.5)
    return group, top, first, np.float32(0.1), 20 if bits == 4 else 15


@njit_cached
def _affine(x, importance, blocks, stride, rows, n, bits, block_bytes):
    """Encode Q2_K, Q4_K and Q5_K: search scale and minimum per group, then round both."""
    sources, targets, weighers = stack(128), stack(128), stack(128)
    values, weights, codes, image = stack(16384), stack(2048), stack(4096), stack(2816)
    found, sums, rounded, units = stack(2048), stack(1024), stack(512), stack(128)
    group, top, start, delta, steps = _affine_settings(bits, importance != 0)
    groups = N // group
    plain_absolute = bits == 2 and importance == 0
    mean_factor = np.float32(1) if bits == 2 else np.float32(2)
    per_row, last = n // N, rows * (n // N) - 1
    for block in range(0, last + 1, LANES):
        point_lanes(sources, x, 4 * n, 4 * N, block, last, per_row)
        point_lanes(targets, blocks, block_bytes * per_row, block_bytes, block, last, per_row)
        gather(sources, int64(0), N, values)
        mean = zeros(f32x16)
        if importance != 0:
            point_lanes(weighers, importance, stride, 4 * N, block, last, per_row)
            mean = full(mean_factor) * sum_of_squares(values, N) / full(np.float32(N))
        for j in range(groups):
            v = values + 64 * group * j
            if importance != 0:
                gather(weighers, int64(4 * group * j), group, weights)
                put(sums, j, _weigh(v, weights, group, mean))
            else:
                _weigh_plainly(v, weights, group, bits)
            c = codes + LANES * group * j
            scale, minimum = scale_min_search(
                v, weights, group, (1 << bits) - 1, start, delta, steps, plain_absolute, c
            )
            put(found, j, scale)
            put(found, 16 + j, minimum)
        for half in range(2):  # the scales, then the minimums
            if importance != 0:
                unit = positive_search(found + 1024 * half, sums, groups, top, rounded + 256 * half)
            else:
                unit = _round_to_top(found + 1024 * half, groups, top, rounded + 256 * half)
            put(units, half, unit)
        d_at = 80 if bits == 2 else 0
        d = put_half(image, d_at, at(units, 0))
        dmin = put_half(image, d_at + 2, at(units, 1))
        for j in range(groups):
            scale, offset = d * _as_float(rounded, j), dmin * _as_float(rounded, 16 + j)
            v, c = values + 64 * group * j, codes + LANES * group * j
            _recode(v, c, group, scale, offset, 0, (1 << bits) - 1)
        _put_affine(image, rounded, codes, bits)
        scatter(image, targets, block_bytes)


@njit
def _put_affine(image, rounded, codes, bits):
    """Store scale codes, minimum codes and codes in the type's layout."""
    if bits == 2:
        for j in range(16):
            put_bytes(image, j, code(rounded, j) | (code(rounded, 16 + j) << splat(4, u8x16)))
        for half in range(2):
            put_planes(image, 16 + 32 * half, codes + 2048 * half, 32, 2, 0)
        return
    high, nibble, two, four = (
        splat(48, u8x16),
        splat(15, u8x16),
        splat(2, u8x16),
        splat(4, u8x16),
    )
    for j in range(4):
        later, later_min = code(rounded, 4 + j), code(rounded, 20 + j)
        put_bytes(image, 4 + j, code(rounded, j) | ((later & high) << two))
        put_bytes(image, 8 + j, code(rounded, 16 + j) | ((later_min & high) << two))
        put_bytes(image, 12 + j, (later & nibble) | ((later_min & nibble) << four))
    start = 16
    if bits == 5:
        put_planes(image, 16, codes, 32, 1, 4)
        start = 48
    for quarter in range(4):
        put_nibbles(image, start + 32 * quarter, codes + 1024 * quarter, 64)


@njit_cached
def _symmetric_3(x, importance, blocks, stride, rows, n):
    """Encode Q3_K: search a scale per group of 16, round the scales around 32."""
    sources, targets, weighers = stack(128), stack(128), stack(128)
    values, weights, codes, image = stack(16384), stack(1024), stack(4096), stack(1760)
    found, sums, rounded = stack(1024), stack(1024), stack(256)
    per_row, last = n // N, rows * (n // N) - 1
    zero = zeros(f32x16)
    for block in range(0, last + 1, LANES):
        point_lanes(sources, x, 4 * n, 4 * N, block, last, per_row)
        point_lanes(targets, blocks, 110 * per_row, 110, block, last, per_row)
        gather(sources, int64(0), N, values)
        if importance != 0:
            point_lanes(weighers, importance, stride, 4 * N, block, last, per_row)
            mean = full(np.float32(2)) * sum_of_squares(values, N) / full(np.float32(N))
            for j in range(16):
                gather(weighers, int64(64 * j), 16, weights)
                v = values + 1024 * j
                put(sums, j, _weigh(v, weights, 16, mean))
                put(found, j, scale_search(v, weights, 16, 4, True, codes + 256 * j))
            d = scale_search(found, sums, 16, 32, False, rounded)
        else:
            for j in range(0, 16, 4):
                descent_search(values + 1024 * j, 4, found + 64 * j, codes + 256 * j)
            d = _round_around(found, 32, rounded)
        d = put_half(image, 108, d)
        for j in range(16):
            scale = d * (_as_float(rounded, j) - full(np.float32(32)))
            _recode(values + 1024 * j, codes + 256 * j, 16, scale, zero, -4, 3)
        _put_symmetric_3(image, rounded, codes)
        scatter(image, targets, 110)


@njit
def _round_around(groups, top, codes):
    """Round 16 scales to -top .. top - 1 of the extreme one, store code + top; return the unit."""
    extreme = peak(groups, 16)[0]
    empty = extreme == zeros(f32x16)
    inverse = full(np.float32(-top)) / extreme
    for i in range(16):
        l = nearest_clamped(inverse * at(groups, i), -top, top - 1)  # noqa: E741
        l = l + full(np.float32(top))  # noqa: E741
        put_codes(codes, i, convert(select(empty, zeros(f32x16), l), i32x16))
    return select(empty, zeros(f32x16), full(np.float32(1)) / inverse)


@njit
def _put_symmetric_3(image, rounded, codes):
    put_planes(image, 0, codes, 32, 1, 2)
    for half in range(2):
        put_planes(image, 32 + 32 * half, codes + 2048 * half, 32, 2, 0)
    put_nibbles(image, 96, rounded, 16)
    put_planes(image, 104, rounded, 4, 2, 4)


@njit_cached
def _symmetric_6(x, importance, blocks, stride, rows, n):
    """Encode Q6_K: search a scale per group of 16, round the scales to signed bytes."""
    sources, targets, weighers = stack(128), stack(128), stack(128)
    values, weights, codes, image = stack(16384), stack(1024), stack(4096), stack(3360)
    found = stack(1024)
    per_row, last = n // N, rows * (n // N) - 1
    zero = zeros(f32x16)
    for block in range(0, last + 1, LANES):
        point_lanes(sources, x, 4 * n, 4 * N, block, last, per_row)
        point_lanes(targets, blocks, 210 * per_row, 210, block, last, per_row)
        gather(sources, int64(0), N, values)
        if importance != 0:
            point_lanes(weighers, importance, stride, 4 * N, block, last, per_row)
        for j in range(16):
            v = values + 1024 * j
            if importance != 0:
                gather(weighers, int64(64 * j), 16, weights)
            else:
                for i in range(16):
                    put(weights, i, at(v, i) * at(v, i))
            put(found, j, scale_search(v, weights, 16, 32, True, codes + 256 * j))
        extreme, magnitude = peak(found, 16)
        empty = magnitude < full(TINY)
        inverse = full(np.float32(-128)) / extreme
        d = put_half(image, 208, select(empty, zero, full(np.float32(1)) / inverse))
        for j in range(16):
            scale = convert(smaller(nearest_int(inverse * at(found, j)), splat(127, i32x16)), i8x16)
            scale = select(empty, zeros(i8x16), scale)
            put_bytes(image, 192 + j, scale)
            scale = d * convert(convert(scale, i32x16), f32x16)
            _recode(values + 1024 * j, codes + 256 * j, 16, scale, zero, -32, 31)
        for i in range(N):
            put_bytes(codes, i, select(empty, zeros(u8x16), code(codes, i)))
        for half in range(2):
            put_nibbles(image, 64 * half, codes + 2048 * half, 128)
            put_planes(image, 128 + 32 * half, codes + 2048 * half, 32, 2, 4)
        scatter(image, targets, 210)

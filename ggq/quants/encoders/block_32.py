"""Encoders of the types with 32 weights a block: Q4_0 Q4_1 Q5_0 Q5_1 Q8_0.

Without importance: quantize_row_*_ref of ggml, one division of the extreme value. With importance:
quantize_row_*_impl, the weighted searches. ggml writes the search's own codes here.
"""

from typing import Any

import numpy as np
from numba import float32, int64

from ggq.jit import njit, njit_cached
from ggq.quants.encoders.search import (
    at,
    full,
    larger,
    peak,
    put,
    put_codes,
    scale_min_search,
    scale_search,
    smaller,
)
from ggq.quants.encoders.slabs import (
    LANES,
    code,
    gather,
    point_lanes,
    put_bytes,
    put_half,
    put_nibbles,
    run,
    scatter,
    truncate,
)
from ggq.simd import (
    convert,
    f32x16,
    fabs,
    i32x16,
    load,
    round_away,
    select,
    splat,
    sqrt,
    stack,
    store,
    u8x16,
    zeros,
)

N = 32
HUGE = np.float32(3.4028234663852886e38)


def symmetric(kind: Any, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """Return blocks of a type with a scale only: Q4_0, Q5_0."""
    return _plain_or_weighted(kind, x, importance, _symmetric, _symmetric_weighted)


def affine(kind: Any, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """Return blocks of a type with scale and minimum: Q4_1, Q5_1."""
    return _plain_or_weighted(kind, x, importance, _affine, _affine_weighted)


def signed_bytes(kind: Any, x: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """Return blocks of Q8_0."""
    return run(_signed_bytes, kind, x, importance)


def _plain_or_weighted(kind, x, importance, plain, weighted):
    if importance is None:
        return run(plain, kind, x, None, kind.levels)
    x = np.ascontiguousarray(x, np.float32)
    means = np.empty(len(x), np.float32)
    if x.size:
        _mean_squares(x.ctypes.data, means.ctypes.data, *x.shape)
    return run(weighted, kind, x, importance, kind.levels, means.ctypes.data)


@njit
def inverse_or_zero(d):
    """Return 1 / d, and zero for d = 0."""
    zero = zeros(f32x16)
    return select(d != zero, full(np.float32(1)) / d, zero)


@njit
def _put_codes_32(image, start, codes, levels):
    """Store 32 codes: fifth bits, if any, as one little-endian word, then nibbles."""
    if levels == 32:
        one, four = splat(1, u8x16), splat(4, u8x16)
        for byte in range(4):
            bits = zeros(u8x16)
            for i in range(8):
                bit = (code(codes, 8 * byte + i) >> four) & one
                bits = bits | (bit << splat(i, u8x16))
            put_bytes(image, start + byte, bits)
        start += 4
    put_nibbles(image, start, codes, N)


@njit
def _half_bytes(levels):
    """Return the bytes of 32 codes."""
    return 16 if levels == 16 else 20


@njit_cached
def _symmetric(x, importance, blocks, stride, rows, n, levels):
    """Scale by the extreme value over -levels / 2, then truncate x / d + levels / 2 + 0.5."""
    block_bytes = 2 + _half_bytes(levels)
    sources, targets, values = stack(128), stack(128), stack(2048)
    codes, image = stack(512), stack(384)
    top = np.float32(levels // 2)
    shift, most = full(top + np.float32(0.5)), splat(levels - 1, i32x16)
    per_row, last = n // N, rows * (n // N) - 1
    for first in range(0, last + 1, LANES):
        point_lanes(sources, x, 4 * n, 4 * N, first, last, per_row)
        point_lanes(targets, blocks, block_bytes * per_row, block_bytes, first, last, per_row)
        gather(sources, int64(0), N, values)
        d = peak(values, N)[0] / full(-top)
        inverse = inverse_or_zero(d)
        put_half(image, 0, d)
        for i in range(N):
            l = truncate(at(values, i) * inverse + shift)  # noqa: E741
            put_codes(codes, i, smaller(l, most))
        _put_codes_32(image, 2, codes, levels)
        scatter(image, targets, block_bytes)


@njit_cached
def _affine(x, importance, blocks, stride, rows, n, levels):
    """Scale the range of the block to levels - 1 steps above its minimum."""
    block_bytes = 4 + _half_bytes(levels)
    sources, targets, values = stack(128), stack(128), stack(2048)
    codes, image = stack(512), stack(384)
    half, most = full(np.float32(0.5)), splat(levels - 1, i32x16)
    per_row, last = n // N, rows * (n // N) - 1
    for first in range(0, last + 1, LANES):
        point_lanes(sources, x, 4 * n, 4 * N, first, last, per_row)
        point_lanes(targets, blocks, block_bytes * per_row, block_bytes, first, last, per_row)
        gather(sources, int64(0), N, values)
        low, high = full(HUGE), full(-HUGE)
        for i in range(N):
            v = at(values, i)
            low, high = smaller(v, low), larger(v, high)
        d = (high - low) / full(np.float32(levels - 1))
        inverse = inverse_or_zero(d)
        put_half(image, 0, d)
        put_half(image, 2, low)
        for i in range(N):
            l = truncate((at(values, i) - low) * inverse + half)  # noqa: E741
            put_codes(codes, i, smaller(l, most))
        _put_codes_32(image, 4, codes, levels)
        scatter(image, targets, block_bytes)


@njit_cached
def _signed_bytes(x, importance, blocks, stride, rows, n):
    """Scale the extreme to 127 and round half away from zero."""
    sources, targets, values, image = stack(128), stack(128), stack(2048), stack(544)
    per_row, last = n // N, rows * (n // N) - 1
    for first in range(0, last + 1, LANES):
        point_lanes(sources, x, 4 * n, 4 * N, first, last, per_row)
        point_lanes(targets, blocks, 34 * per_row, 34, first, last, per_row)
        gather(sources, int64(0), N, values)
        magnitude = zeros(f32x16)
        for i in range(N):
            magnitude = larger(fabs(at(values, i)), magnitude)
        d = magnitude / full(np.float32(127))
        inverse = inverse_or_zero(d)
        put_half(image, 0, d)
        for i in range(N):
            l = truncate(round_away(at(values, i) * inverse))  # noqa: E741
            put_bytes(image, 2 + i, convert(l, u8x16))
        scatter(image, targets, 34)


@njit_cached
def _mean_squares(x, means, rows, n):
    """Write the mean square of every row, sixteen rows at a time, each summed first to last."""
    sources, targets, tile = stack(128), stack(128), stack(1024)
    for first in range(0, rows, LANES):
        point_lanes(sources, x, 4 * n, 0, first, rows - 1, 1)
        point_lanes(targets, means, 4, 0, first, rows - 1, 1)
        total = zeros(f32x16)
        for start in range(0, n, LANES):
            gather(sources, int64(4 * start), LANES, tile)
            for i in range(LANES):
                v = at(tile, i)
                total = total + v * v
        store(tile, total / full(np.float32(n)))
        for i in range(LANES):
            store(load(targets + 8 * i, int64), load(tile + 4 * i, float32))


@njit
def _weights(values, importance, stride, means, first, last, per_row, target):
    """Store importance * sqrt(mean square of the row + x^2) for each lane's block."""
    table, gathered = stack(128), stack(64)
    point_lanes(table, means, 4, 0, first, last, per_row)
    for i in range(LANES):
        store(gathered + 4 * i, load(load(table + 8 * i, int64), float32))
    mean = load(gathered, f32x16)
    point_lanes(table, importance, stride, 4 * N, first, last, per_row)
    gather(table, int64(0), N, target)
    for i in range(N):
        v = at(values, i)
        put(target, i, at(target, i) * sqrt(mean + v * v))


@njit_cached
def _symmetric_weighted(x, importance, blocks, stride, rows, n, levels, means):
    """Search the scale under importance weights (make_qx_quants)."""
    block_bytes = 2 + _half_bytes(levels)
    sources, targets, values, weights = stack(128), stack(128), stack(2048), stack(2048)
    codes, image = stack(512), stack(384)
    per_row, last = n // N, rows * (n // N) - 1
    for first in range(0, last + 1, LANES):
        point_lanes(sources, x, 4 * n, 4 * N, first, last, per_row)
        point_lanes(targets, blocks, block_bytes * per_row, block_bytes, first, last, per_row)
        gather(sources, int64(0), N, values)
        _weights(values, importance, stride, means, first, last, per_row, weights)
        put_half(image, 0, scale_search(values, weights, N, levels // 2, True, codes))
        _put_codes_32(image, 2, codes, levels)
        scatter(image, targets, block_bytes)


@njit_cached
def _affine_weighted(x, importance, blocks, stride, rows, n, levels, means):
    """Search scale and minimum under importance weights (make_qkx3_quants)."""
    block_bytes = 4 + _half_bytes(levels)
    sources, targets, values, weights = stack(128), stack(128), stack(2048), stack(2048)
    codes, image = stack(512), stack(384)
    start, stride_of_steps = np.float32(-0.9), np.float32(0.05)
    per_row, last = n // N, rows * (n // N) - 1
    for first in range(0, last + 1, LANES):
        point_lanes(sources, x, 4 * n, 4 * N, first, last, per_row)
        point_lanes(targets, blocks, block_bytes * per_row, block_bytes, first, last, per_row)
        gather(sources, int64(0), N, values)
        _weights(values, importance, stride, means, first, last, per_row, weights)
        d, m = scale_min_search(
            values, weights, N, levels - 1, start, stride_of_steps, 36, False, codes
        )
        put_half(image, 0, d)
        put_half(image, 2, -m)
        _put_codes_32(image, 4, codes, levels)
        scatter(image, targets, block_bytes)

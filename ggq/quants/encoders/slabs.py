"""Blocks in lanes: which block each of 16 lanes holds, how it gets there, how its bytes get back.

A slab is whole rows in memory. Lanes beyond the last block repeat it and write the same bytes
again. It knows no block type.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import int64

from ggq.errors import UsageError
from ggq.jit import njit
from ggq.quants.base import QuantType
from ggq.simd import (
    bitcast,
    convert,
    f16x16,
    f32x16,
    gather_rows,
    i32x16,
    load,
    scatter_rows,
    select,
    splat,
    store,
    u8x16,
    u16x16,
    zeros,
)

LANES = 16


def run(
    kernel: Callable[..., None],
    kind: QuantType,
    x: np.ndarray,
    importance: np.ndarray | None,
    *settings: Any,
) -> np.ndarray:
    """Return the blocks of ``kind`` that ``kernel`` writes for float32 rows ``x``.

    The kernel gets the addresses of x, importance (0: none) and blocks, the bytes from one row of
    importance to the next (0: one for all), rows, n, and ``settings``.
    """
    x, importance = contiguous(x, importance)
    rows, n = x.shape
    blocks = np.empty((rows, kind.row_bytes(n)), np.uint8)
    if blocks.size:
        address, stride = place(importance)
        kernel(x.ctypes.data, address, blocks.ctypes.data, stride, rows, n, *settings)
    return blocks


def contiguous(
    x: np.ndarray, importance: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return float32 rows and importance, None or of shape (n,) or (rows, n), as kernels read them.

    UsageError: importance of another shape.
    """
    x = np.ascontiguousarray(x, np.float32)
    if importance is not None:
        importance = np.ascontiguousarray(importance, np.float32)
        if importance.shape not in (x.shape[1:], x.shape):
            raise UsageError(f"importance of shape {importance.shape} for rows of shape {x.shape}")
    return x, importance


def place(importance: np.ndarray | None) -> tuple[int, int]:
    """Return the address of importance, 0 for None, and the bytes from one row to the next."""
    if importance is None:
        return 0, 0
    return importance.ctypes.data, importance.strides[0] if importance.ndim > 1 else 0


@njit
def point_lanes(table, base, row_stride, block_stride, first, last, per_row):
    """Write the addresses of 16 blocks from ``first`` on, none above ``last``, to ``table``."""
    for lane in range(LANES):
        block = min(first + lane, last)
        row = block // per_row
        address = base + row * row_stride + (block - row * per_row) * block_stride
        store(table + 8 * lane, int64(address))


@njit
def gather(table, offset, n, target):
    """Load ``n`` floats (a multiple of 16) behind each address as [position][lane]."""
    for i in range(0, n, LANES):
        gather_rows(table, offset + 4 * i, target + 64 * i, f32x16)


@njit
def scatter(image, table, nbytes):
    """Write the bytes [position][lane] of ``image`` behind each address, 16 at a time."""
    for i in range(0, nbytes - LANES + 1, LANES):
        scatter_rows(image + LANES * i, table, int64(i), u8x16)
    if nbytes % LANES:
        last = nbytes - LANES
        scatter_rows(image + LANES * last, table, int64(last), u8x16)


@njit
def code(codes, i):
    """Load the codes at position ``i``."""
    return load(codes + LANES * i, u8x16)


@njit
def put_bytes(image, i, values):
    """Store the byte of every lane at position ``i``."""
    store(image + LANES * i, values)


@njit
def put_half(image, i, value):
    """Store float32 lanes as half precision at byte ``i`` and return them rounded."""
    halves = convert(value, f16x16)
    bits = bitcast(halves, u16x16)
    put_bytes(image, i, convert(bits, u8x16))
    put_bytes(image, i + 1, convert(bits >> splat(8, u16x16), u8x16))
    return convert(halves, f32x16)


@njit
def put_nibbles(image, at, codes, n):
    """Store the low nibbles of ``n`` codes, the second half above the first, from byte ``at``."""
    low, four = splat(15, u8x16), splat(4, u8x16)
    half = n // 2
    for i in range(half):
        byte = (code(codes, i) & low) | ((code(codes, i + half) & low) << four)
        put_bytes(image, at + i, byte)


@njit
def put_planes(image, at, codes, width, bits, shift):
    """Store ``bits`` bits of each code from ``shift`` on: byte i has code i, then i + width, ..."""
    mask, down = splat((1 << bits) - 1, u8x16), splat(shift, u8x16)
    for i in range(width):
        byte = zeros(u8x16)
        for plane in range(8 // bits):
            part = (code(codes, plane * width + i) >> down) & mask
            byte = byte | (part << splat(bits * plane, u8x16))
        put_bytes(image, at + i, byte)


@njit
def truncate(value):
    """Return C's conversion of float to int for |value| < 2**30, and zero beyond and for NaN.

    ggml takes the low byte of what x86 gives there, which is zero.
    """
    limit = splat(1073741824.0, f32x16)
    inside = (value < limit) & (value > -limit)
    return convert(select(inside, value, zeros(f32x16)), i32x16)

"""What this machine can do at most: read bandwidth, the rates of dot instruction and float32 FMA.

They are measured, as limits to compare kernels with; it knows no model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from numba import int64

from ggq.jit import njit, njit_cached
from ggq.simd import bitcast, dot4, f32x16, fma, i8x64, i32x16, lane, load, splat, u8x64, zeros

__all__ = ["dot_peak", "float_peak", "read_bandwidth"]

_BYTES = 256 << 20  # well above any cache that a core has for itself
_ROUNDS = 200_000


@njit_cached
def _read(address, nbytes):
    """Combine all 64-byte vectors of a range: reading is the only work."""
    a, b, c, d = zeros(u8x64), zeros(u8x64), zeros(u8x64), zeros(u8x64)
    for i in range(0, nbytes, 256):
        at = address + i
        a, b = a ^ load(at, u8x64), b ^ load(at + 64, u8x64)
        c, d = c ^ load(at + 128, u8x64), d ^ load(at + 192, u8x64)
    return int64(lane((a ^ b) ^ (c ^ d), 0))


@njit
def _step(sums, codes, column):
    a, b, c, d, e, f, g, h = sums
    return (
        dot4(a, codes, column),
        dot4(b, codes, column),
        dot4(c, codes, column),
        dot4(d, codes, column),
        dot4(e, codes, column),
        dot4(f, codes, column),
        dot4(g, codes, column),
        dot4(h, codes, column),
    )


@njit_cached
def _dots(rounds, seed):
    """Run 16 dot instructions a round on two sets of eight independent sums."""
    codes, column = splat(seed, u8x64), bitcast(splat(seed, i32x16), i8x64)
    z = zeros(i32x16)
    first = (z, z, z, z, z, z, z, z)
    second = first
    for _ in range(rounds):
        first, second = _step(first, codes, column), _step(second, codes, column)
    total = z
    for sums in (first, second):
        for v in sums:
            total = total + v
    return int64(lane(total, 0))


@njit
def _float_step(sums, x):
    a, b, c, d, e, f, g, h = sums
    return (
        fma(a, x, x),
        fma(b, x, x),
        fma(c, x, x),
        fma(d, x, x),
        fma(e, x, x),
        fma(f, x, x),
        fma(g, x, x),
        fma(h, x, x),
    )


@njit_cached
def _floats(rounds, seed):
    """Run 16 multiply-adds of 16 floats a round on two sets of eight independent sums."""
    x = splat(1 / (seed + 1), f32x16)
    first = (x, x, x, x, x, x, x, x)
    second = first
    for _ in range(rounds):
        first, second = _float_step(first, x), _float_step(second, x)
    total = x
    for sums in (first, second):
        for v in sums:
            total = total + v
    return lane(total, 0)


def _best(work: Callable[[int], object], n_threads: int, repeats: int) -> float:
    """Return the shortest time of ``work(thread)`` on all threads at once, in seconds."""
    best = float("inf")
    for _ in range(repeats):
        threads = [threading.Thread(target=work, args=(i,)) for i in range(n_threads)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = min(best, time.perf_counter() - start)
    return best


def read_bandwidth(n_threads: int, repeats: int = 5, data: np.ndarray | None = None) -> float:
    """Return the bytes per second that ``n_threads`` read together, from ``data`` or new memory."""
    data = np.ones(_BYTES, np.uint8) if data is None else data
    share = data.nbytes // n_threads // 256 * 256
    _read(data.ctypes.data, 4096)
    elapsed = _best(lambda i: _read(data.ctypes.data + i * share, share), n_threads, repeats)
    return n_threads * share / elapsed


def dot_peak(n_threads: int, repeats: int = 5) -> float:
    """Return the multiply-adds of 8-bit codes per second that ``n_threads`` do together."""
    _dots(10, 1)
    elapsed = _best(lambda i: _dots(_ROUNDS, i + 1), n_threads, repeats)
    return n_threads * _ROUNDS * 16 * 64 / elapsed


def float_peak(n_threads: int, repeats: int = 5) -> float:
    """Return the multiply-adds of float32 per second that ``n_threads`` do together."""
    _floats(10, 1)
    rounds = 50 * _ROUNDS  # long beside the start of a thread
    elapsed = _best(lambda i: _floats(rounds, i + 1), n_threads, repeats)
    return n_threads * rounds * 16 * 16 / elapsed

"""Rotating the column pairs of one head by cosines and sines that stand in memory."""

from ggq.jit import njit
from ggq.simd import f32x16, float32, load, shuffle, store

_first = shuffle([2 * i for i in range(16)])
_second = shuffle([2 * i + 1 for i in range(16)])
_pair_low = shuffle([i // 2 if i % 2 == 0 else 16 + i // 2 for i in range(16)])
_pair_high = shuffle([8 + i // 2 if i % 2 == 0 else 24 + i // 2 for i in range(16)])


@njit
def _rotate_pair(x, out, a, b, cos, sin):
    """Rotate the pair of columns (a, b)."""
    c, s = load(cos, float32), load(sin, float32)
    first, second = load(x + 4 * a, float32), load(x + 4 * b, float32)
    store(out + 4 * a, first * c - second * s)
    store(out + 4 * b, first * s + second * c)


@njit
def rotate_neighbours(x, out, cos, sin, half):
    """Pairs (2i, 2i + 1)."""
    i = 0
    while i + 16 <= half:
        low, high = load(x + 8 * i, f32x16), load(x + 8 * i + 64, f32x16)
        a, b = _first(low, high), _second(low, high)
        c, s = load(cos + 4 * i, f32x16), load(sin + 4 * i, f32x16)
        a, b = a * c - b * s, a * s + b * c
        store(out + 8 * i, _pair_low(a, b))
        store(out + 8 * i + 64, _pair_high(a, b))
        i += 16
    while i < half:
        _rotate_pair(x, out, 2 * i, 2 * i + 1, cos + 4 * i, sin + 4 * i)
        i += 1


@njit
def rotate_halves(x, out, cos, sin, half):
    """Pairs (i, i + half)."""
    i = 0
    while i + 16 <= half:
        a, b = load(x + 4 * i, f32x16), load(x + 4 * (i + half), f32x16)
        c, s = load(cos + 4 * i, f32x16), load(sin + 4 * i, f32x16)
        store(out + 4 * i, a * c - b * s)
        store(out + 4 * (i + half), a * s + b * c)
        i += 16
    while i < half:
        _rotate_pair(x, out, i, i + half, cos + 4 * i, sin + 4 * i)
        i += 1


@njit
def rotate(x, out, cos, half, neox, width):
    """Rotate the first 2 x ``half`` columns of a head of ``width``; sines follow the cosines."""
    sin = cos + 4 * half
    if neox:
        rotate_halves(x, out, cos, sin, half)
    else:
        rotate_neighbours(x, out, cos, sin, half)
    for i in range(2 * half, width):
        store(out + 4 * i, load(x + 4 * i, float32))

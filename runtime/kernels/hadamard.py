"""The Hadamard transform of a head's columns: outliers spread over all, dot products stay.

It is orthogonal and its own inverse, so that queries and keys that both went through it score as
before, and mixed values come back by it (arXiv 2404.00456). It knows no cache.
"""

from ggq.jit import njit
from ggq.simd import f32x16, float32, load, shuffle, splat, sqrt, store

_even, _odd = shuffle(range(0, 32, 2)), shuffle(range(1, 32, 2))


@njit
def _stage(a, b):
    """Return one of the five equal stages of 32 columns: neighbours' sums, then differences."""
    x, y = _even(a, b), _odd(a, b)
    return x + y, x - y


@njit
def hadamard(at, width):
    """Transform ``width`` float32 at ``at`` in place, ``width`` a multiple of 32.

    In blocks of the greatest power of 2 that divides ``width``: of 128 columns one, of 96 three.
    """
    size = width & -width
    scale = splat(float32(1), f32x16) / sqrt(splat(float32(size), f32x16))
    for column in range(0, width, 32):
        here = at + 4 * column
        a, b = load(here, f32x16) * scale, load(here + 64, f32x16) * scale
        for _ in range(5):
            a, b = _stage(a, b)
        store(here, a)
        store(here + 64, b)
    apart = 32
    while apart < size:
        for column in range(0, width, 16):
            if not column & apart:
                low, high = at + 4 * column, at + 4 * (column + apart)
                a, b = load(low, f32x16), load(high, f32x16)
                store(low, a + b)
                store(high, a - b)
        apart *= 2

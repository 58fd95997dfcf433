"""Scores of a page of 64 positions become weights: caps, ALiBi, an online softmax of one query.

Running maximum and sum as in arXiv 2205.14135. It knows no cache and no plan.
"""

from numba import float32

from ggq.jit import njit
from ggq.runtime.cache.layout import PAGE
from ggq.simd import (
    convert,
    f32x16,
    fabs,
    i32x16,
    lane,
    load,
    reduce_add,
    reduce_max,
    select,
    splat,
    store,
    vector_constant,
    vmax,
    zeros,
)
from ggq.simd.math import exp, tanh

__all__ = ["FAR", "exp_scalar", "lower_by_distance", "online_softmax"]

FAR = -1e30  # below every score; its difference to a score is finite
_iota = vector_constant(i32x16, range(16))


@njit
def exp_scalar(x):
    return lane(exp(splat(x, f32x16)), 0)


@njit
def _visible(first, start, end):
    """Return which of 16 positions from ``first`` on lie in [start, end)."""
    position = _iota() + splat(first, i32x16)
    return (position >= splat(start, i32x16)) & (position < splat(end, i32x16))


@njit
def _capped(s, cap):
    if cap != 0:
        limit = splat(cap, f32x16)
        s = limit * tanh(s / limit)
    return s


@njit
def online_softmax(scores, cap, first, start, end, state):
    """Turn 64 scores into weights; update (maximum, sum) at ``state``; return the decay.

    Weights of positions before ``start`` and from ``end`` on are zero.
    """
    s0, s1 = _capped(load(scores, f32x16), cap), _capped(load(scores + 64, f32x16), cap)
    s2, s3 = _capped(load(scores + 128, f32x16), cap), _capped(load(scores + 192, f32x16), cap)
    whole = first >= start and first + PAGE <= end
    if not whole:
        far = splat(FAR, f32x16)
        s0 = select(_visible(first, start, end), s0, far)
        s1 = select(_visible(first + 16, start, end), s1, far)
        s2 = select(_visible(first + 32, start, end), s2, far)
        s3 = select(_visible(first + 48, start, end), s3, far)
    old = load(state, float32)
    top = max(old, reduce_max(vmax(vmax(s0, s1), vmax(s2, s3))))
    shift = splat(top, f32x16)
    p0, p1, p2, p3 = exp(s0 - shift), exp(s1 - shift), exp(s2 - shift), exp(s3 - shift)
    if not whole:  # where nothing is visible so far, exp gave 1
        none = zeros(f32x16)
        p0 = select(_visible(first, start, end), p0, none)
        p1 = select(_visible(first + 16, start, end), p1, none)
        p2 = select(_visible(first + 32, start, end), p2, none)
        p3 = select(_visible(first + 48, start, end), p3, none)
    store(scores, p0)
    store(scores + 64, p1)
    store(scores + 128, p2)
    store(scores + 192, p3)
    decay = exp_scalar(old - top)
    store(state, top)
    store(state + 4, load(state + 4, float32) * decay + reduce_add((p0 + p1) + (p2 + p3)))
    return splat(decay, f32x16)


@njit
def lower_by_distance(scores, slope, first, position):
    """Take slope times the distance to ``position`` from 64 scores (arXiv 2108.12409)."""
    factor, own = splat(slope, f32x16), splat(position - first, i32x16)
    for part in range(4):
        at = scores + 64 * part
        distance = convert(_iota() + splat(16 * part, i32x16) - own, f32x16)
        store(at, load(at, f32x16) - factor * fabs(distance))

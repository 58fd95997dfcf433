"""The online softmax of one query over a page: caps, ALiBi, what is visible (arXiv 2205.14135).

It knows scores and positions, no keys, no values and no plan.
"""

from ggq.jit import njit
from ggq.runtime.cache.layout import PAGE
from ggq.simd import (
    convert,
    f32x16,
    fabs,
    float32,
    i32x16,
    int32,
    int64,
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
def _biased(s, slope, distance):
    """Lower 16 scores by ``slope`` for each position from the query; the first's ``distance``."""
    if slope != 0:
        away = fabs(convert(_iota() + splat(distance, i32x16), f32x16))
        s = s - splat(slope, f32x16) * away
    return s


@njit
def online_softmax(scores, cap, slope, first, start, end, state):
    """Turn 64 scores into weights; update (maximum, sum) at ``state``; return the decay.

    Weights of positions before ``start`` and from ``end`` on are zero. ``slope``: where the query's
    slope and its own position stand.
    """
    s0, s1 = _capped(load(scores, f32x16), cap), _capped(load(scores + 64, f32x16), cap)
    s2, s3 = _capped(load(scores + 128, f32x16), cap), _capped(load(scores + 192, f32x16), cap)
    bias, distance = load(slope, float32), first - int64(load(slope + 4, int32))
    s0, s1 = _biased(s0, bias, distance), _biased(s1, bias, distance + 16)
    s2, s3 = _biased(s2, bias, distance + 32), _biased(s3, bias, distance + 48)
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

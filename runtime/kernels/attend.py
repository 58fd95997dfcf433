"""Causal attention over a paged cache with an online softmax: a page of 64 positions at a time.

Four queries that share a key-value head are worked on together, so that a key or value is read and
widened once for them (arXiv 2305.13245); running maximum and sum as in arXiv 2205.14135. It knows
no plan; how cached elements are read is handed in.
"""

from numba import float32, int64

from ggq.jit import njit
from ggq.runtime.kvcache import PAGE
from ggq.simd import (
    f32x16,
    fma,
    i32x16,
    lane,
    load,
    reduce_add,
    reduce_max,
    select,
    splat,
    stack,
    store,
    vector_constant,
    vmax,
    zeros,
)
from ggq.simd.math import exp, tanh

# Argument slots, in bytes.
QUERIES, QUERY_STRIDE, OUT, OUT_STRIDE = 0, 8, 16, 24
N_KV, GROUP, HEAD, HEAD_V = 32, 40, 48, 56
SCALE, SOFTCAP, WINDOW, SINKS = 64, 72, 80, 88
KEYS, VALUES, SEGMENTS, ELEMENT = 96, 104, 112, 120
# A segment: consecutive tokens of one sequence, int64 each.
FIRST_TOKEN, COUNT, POSITION, PAGE_TABLE = 0, 8, 16, 24
SEGMENT_BYTES = 32

MAX_HEAD = 512  # columns of a value, and of a key where it is rotated in passing
MAX_KEY = 4096
_FAR = -1e30  # below every score; its difference to a score is finite
_iota = vector_constant(i32x16, range(16))


@njit
def _word(args, at):
    return load(args + at, int64)


@njit
def scores4(keys, q0, q1, q2, q3, head, size, out, vector):
    """Write the raw dot products of four queries with 64 positions, float32 [4][64]."""
    for part in range(2):  # 32 positions: eight running sums
        a0, a1, b0, b1 = zeros(f32x16), zeros(f32x16), zeros(f32x16), zeros(f32x16)
        c0, c1, d0, d1 = a0, a0, a0, a0
        at = keys + 32 * part * size
        for i in range(head):
            k0, k1 = vector(at), vector(at + 16 * size)
            a = splat(load(q0 + 4 * i, float32), f32x16)
            b = splat(load(q1 + 4 * i, float32), f32x16)
            c = splat(load(q2 + 4 * i, float32), f32x16)
            d = splat(load(q3 + 4 * i, float32), f32x16)
            a0, a1, b0, b1 = fma(a, k0, a0), fma(a, k1, a1), fma(b, k0, b0), fma(b, k1, b1)
            c0, c1, d0, d1 = fma(c, k0, c0), fma(c, k1, c1), fma(d, k0, d0), fma(d, k1, d1)
            at += PAGE * size
        to = out + 128 * part
        store(to, a0)
        store(to + 64, a1)
        store(to + 256, b0)
        store(to + 320, b1)
        store(to + 512, c0)
        store(to + 576, c1)
        store(to + 768, d0)
        store(to + 832, d1)


@njit
def _exp_scalar(x):
    return lane(exp(splat(x, f32x16)), 0)


@njit
def _prepare(scores, j, args, first, start, end):
    """Return scores 16 j .. 16 j + 15 scaled, capped and masked to positions [start, end)."""
    s = load(scores + 64 * j, f32x16) * splat(load(args + SCALE, float32), f32x16)
    cap = load(args + SOFTCAP, float32)
    if cap != 0:
        limit = splat(cap, f32x16)
        s = limit * tanh(s / limit)
    position = _iota() + splat(first + 16 * j, i32x16)
    seen = (position >= splat(start, i32x16)) & (position < splat(end, i32x16))
    return select(seen, s, splat(_FAR, f32x16)), seen


@njit
def _soften(scores, args, first, start, end, state):
    """Turn 64 scores into weights; update (maximum, sum) at ``state``; return the decay."""
    s0, m0 = _prepare(scores, 0, args, first, start, end)
    s1, m1 = _prepare(scores, 1, args, first, start, end)
    s2, m2 = _prepare(scores, 2, args, first, start, end)
    s3, m3 = _prepare(scores, 3, args, first, start, end)
    old = load(state, float32)
    top = max(old, reduce_max(vmax(vmax(s0, s1), vmax(s2, s3))))
    shift, none = splat(top, f32x16), zeros(f32x16)
    p0, p1 = select(m0, exp(s0 - shift), none), select(m1, exp(s1 - shift), none)
    p2, p3 = select(m2, exp(s2 - shift), none), select(m3, exp(s3 - shift), none)
    store(scores, p0)
    store(scores + 64, p1)
    store(scores + 128, p2)
    store(scores + 192, p3)
    decay = _exp_scalar(old - top)
    store(state, top)
    store(state + 4, load(state + 4, float32) * decay + reduce_add((p0 + p1) + (p2 + p3)))
    return decay


@njit
def mix4(values, weights, first, last, sums, width, decays, size, vector):
    """Decay four running outputs [4][MAX_HEAD]; add weighted values of positions first..last."""
    for column in range(0, width, 32):
        wide = column + 16 < width
        at = sums + 4 * column
        d0, d1, d2, d3 = decays
        a0, b0 = load(at, f32x16) * d0, load(at + 4 * MAX_HEAD, f32x16) * d1
        c0, e0 = load(at + 8 * MAX_HEAD, f32x16) * d2, load(at + 12 * MAX_HEAD, f32x16) * d3
        a1, b1 = load(at + 64, f32x16) * d0, load(at + 4 * MAX_HEAD + 64, f32x16) * d1
        c1 = load(at + 8 * MAX_HEAD + 64, f32x16) * d2
        e1 = load(at + 12 * MAX_HEAD + 64, f32x16) * d3
        for j in range(first, last):
            row = values + (j * width + column) * size
            v0 = vector(row)
            v1 = vector(row + 16 * size) if wide else v0
            w = weights + 4 * j
            p0, p1 = splat(load(w, float32), f32x16), splat(load(w + 256, float32), f32x16)
            p2, p3 = splat(load(w + 512, float32), f32x16), splat(load(w + 768, float32), f32x16)
            a0, b0, c0, e0 = fma(p0, v0, a0), fma(p1, v0, b0), fma(p2, v0, c0), fma(p3, v0, e0)
            a1, b1, c1, e1 = fma(p0, v1, a1), fma(p1, v1, b1), fma(p2, v1, c1), fma(p3, v1, e1)
        store(at, a0)
        store(at + 4 * MAX_HEAD, b0)
        store(at + 8 * MAX_HEAD, c0)
        store(at + 12 * MAX_HEAD, e0)
        if wide:
            store(at + 64, a1)
            store(at + 4 * MAX_HEAD + 64, b1)
            store(at + 8 * MAX_HEAD + 64, c1)
            store(at + 12 * MAX_HEAD + 64, e1)


@njit
def _query(args, segment, kv, index):
    """Return (address of the query, its token's position, address of its output, its head)."""
    group, width, width_v = _word(args, GROUP), _word(args, HEAD), _word(args, HEAD_V)
    token, head = index // group, kv * group + index % group
    row = _word(segment, FIRST_TOKEN) + token
    query = _word(args, QUERIES) + row * _word(args, QUERY_STRIDE) + 4 * head * width
    out = _word(args, OUT) + row * _word(args, OUT_STRIDE) + 4 * head * width_v
    return query, _word(segment, POSITION) + token, out, head


@njit
def _window_start(args, position):
    window = _word(args, WINDOW)
    return max(int64(0), position + 1 - window) if window else int64(0)


@njit
def _write(args, out, head, sums, state):
    """Divide by the sum of weights (with the head's sink, arXiv 2309.17453); store the output."""
    top, total = load(state, float32), load(state + 4, float32)
    sinks, keep = _word(args, SINKS), float32(1)
    if sinks:
        sink = load(sinks + 4 * head, float32)
        high = max(top, sink)
        keep = _exp_scalar(top - high)
        total = total * keep + _exp_scalar(sink - high)
    factor = splat(keep / total, f32x16)
    for i in range(0, _word(args, HEAD_V), 16):
        store(out + 4 * i, load(sums + 4 * i, f32x16) * factor)


@njit
def _four(args, segment, kv, index, count, scratch, unit, scores_of, mix):
    """Attend queries index .. index + 3 (the last one repeated) of one key-value head."""
    q0, p0, o0, h0 = _query(args, segment, kv, index)
    q1, p1, o1, h1 = _query(args, segment, kv, min(index + 1, count - 1))
    q2, p2, o2, h2 = _query(args, segment, kv, min(index + 2, count - 1))
    q3, p3, o3, h3 = _query(args, segment, kv, min(index + 3, count - 1))
    head, width = _word(args, HEAD), _word(args, HEAD_V)
    state, scores, sums = scratch, scratch + 64, scratch + 64 + 1024
    for i in range(4):
        store(state + 8 * i, float32(_FAR))
        store(state + 8 * i + 4, float32(0))
    for i in range(0, 16 * MAX_HEAD, 64):
        store(sums + i, zeros(f32x16))
    n_kv, table = _word(args, N_KV), _word(segment, PAGE_TABLE)
    begin = _window_start(args, p0)
    for number in range(begin // PAGE, p3 // PAGE + 1):
        page, first = load(table + 8 * number, int64), number * PAGE
        keys = _word(args, KEYS) + (page * n_kv + kv) * (head * PAGE // 32 * unit)
        values = _word(args, VALUES) + (page * n_kv + kv) * (width * PAGE // 32 * unit)
        scores_of(keys, q0, q1, q2, q3, head, scores)
        decays = (
            splat(_soften(scores, args, first, _window_start(args, p0), p0 + 1, state), f32x16),
            splat(
                _soften(scores + 256, args, first, _window_start(args, p1), p1 + 1, state + 8),
                f32x16,
            ),
            splat(
                _soften(scores + 512, args, first, _window_start(args, p2), p2 + 1, state + 16),
                f32x16,
            ),
            splat(
                _soften(scores + 768, args, first, _window_start(args, p3), p3 + 1, state + 24),
                f32x16,
            ),
        )
        low, high = max(int64(0), begin - first), min(int64(PAGE), p3 + 1 - first)
        mix(values, scores, low, high, sums, width, decays)
    _write(args, o0, h0, sums, state)
    _write(args, o1, h1, sums + 4 * MAX_HEAD, state + 8)
    _write(args, o2, h2, sums + 8 * MAX_HEAD, state + 16)
    _write(args, o3, h3, sums + 12 * MAX_HEAD, state + 24)


@njit
def attend(args, first, last, unit, scores, mix):
    """Attend items: (segment, key-value head).

    ``unit``: bytes of 32 cached elements; ``scores`` and ``mix`` read them (cached.py).
    """
    scratch = stack(9408)  # 64 state + 1024 scores + 4 x MAX_HEAD floats
    n_kv, group = _word(args, N_KV), _word(args, GROUP)
    for item in range(first, last):
        segment = _word(args, SEGMENTS) + SEGMENT_BYTES * (item // n_kv)
        count = _word(segment, COUNT) * group
        for index in range(0, count, 4):
            _four(args, segment, item % n_kv, index, count, scratch, unit, scores, mix)

"""Attention of rows that all see each other, head by head: 64 queries go through a head's keys.

As in arXiv 2205.14135: four queries at a time meet a page of 64 keys, which stays in the L1 cache
for all 64; running maximum and sum are softmax.py's. A stretch's keys and values lie in pages of
their own: keys as [column][64], values as [64][``wide`` columns]. It knows no plan.
"""

from ggq.jit import njit
from ggq.runtime.kernels.softmax import FAR, online_softmax
from ggq.simd import (
    FLOAT,
    INT,
    ROWS,
    Struct,
    f32x16,
    float32,
    fma,
    int32,
    int64,
    isa,
    load,
    splat,
    stack,
    store,
    view,
    zeros,
)

__all__ = ["BLOCK", "FILL", "MAX_WIDTH", "PAGE", "PART", "SEE", "fill", "see"]

PAGE = BLOCK = 64  # keys of a page, queries that go through the pages together
MAX_WIDTH = 512  # columns of a head
# Rows first_row .. first_row + count - 1 of a stretch of n_keys, whose pages begin at first_page.
PART = Struct("part", first_row=INT, count=INT, first_page=INT, n_keys=INT)
_PART_BYTES = PART.nbytes
_PLACES = Struct("places", n_head=INT, head=INT, wide=INT, n_pages=INT, keys=INT, values=INT)
FILL = Struct("fill", _PLACES, new_keys=ROWS, new_values=ROWS, parts=INT)
SEE = Struct("see", _PLACES, queries=ROWS, out=ROWS, parts=INT, n_parts=INT, scale=FLOAT)
# Scratch in bytes: (maximum, sum of weights) of each query, no slope, four queries' scores; then
# queries as [column][4] and outputs as [4][wide], quad by quad.
_STATES, _NO_SLOPE, _SCORES = 0, 8 * BLOCK, 8 * BLOCK + 64
_QUERIES = _SCORES + 4 * 4 * PAGE
_OUTPUTS = _QUERIES + 4 * BLOCK * MAX_WIDTH
_SCRATCH = _OUTPUTS + 4 * BLOCK * MAX_WIDTH
_LONG = isa.SET.lanes == 16  # 32 registers that hold a vector each


@njit
def _page(args, head, number):
    """Return where the keys and the values of a head's page stand."""
    at = head * args.n_pages + number
    return args.keys + 4 * PAGE * at * args.head, args.values + 4 * PAGE * at * args.wide


@njit
def fill(args, first, last):
    """Put the keys and values of parts, a page each, in their places."""
    width = args.head
    for item in range(first, last):
        part = view(args.parts + _PART_BYTES * item, PART)
        for i in range(part.count):
            row = part.first_row + i
            key = args.new_keys + row * args.new_keys_stride
            value = args.new_values + row * args.new_values_stride
            for head in range(args.n_head):
                keys, values = _page(args, head, int64(item))
                values += 4 * i * args.wide
                for column in range(width):
                    at = 4 * (head * width + column)
                    store(keys + 4 * (PAGE * column + i), load(key + at, float32))
                    store(values + 4 * column, load(value + at, float32))


# Sums of four queries over n terms: a vector of 16 (keys or columns) from ``source`` times a number
# of each query from ``factors``, ``gap`` bytes apart.


@njit
def _factors(at, gap):
    a, b = splat(load(at, float32), f32x16), splat(load(at + gap, float32), f32x16)
    c, d = splat(load(at + 2 * gap, float32), f32x16), splat(load(at + 3 * gap, float32), f32x16)
    return a, b, c, d


@njit
def _add1(sums, source, stride, factors, gap, step, n):
    """Return four sums of one vector each."""
    a, b, c, d = sums
    for i in range(n):
        v, p = load(source + i * stride, f32x16), _factors(factors + i * step, gap)
        a, b, c, d = fma(p[0], v, a), fma(p[1], v, b), fma(p[2], v, c), fma(p[3], v, d)
    return a, b, c, d


@njit
def _get4(at):
    return (
        load(at, f32x16),
        load(at + 64, f32x16),
        load(at + 128, f32x16),
        load(at + 192, f32x16),
    )


@njit
def _fma4(p, v, s):
    return fma(p, v[0], s[0]), fma(p, v[1], s[1]), fma(p, v[2], s[2]), fma(p, v[3], s[3])


@njit
def _add4(sums, source, stride, factors, gap, step, n):
    """Return four sums of four vectors each."""
    a, b, c, d = sums
    for i in range(n):
        v, p = _get4(source + i * stride), _factors(factors + i * step, gap)
        a, b, c, d = _fma4(p[0], v, a), _fma4(p[1], v, b), _fma4(p[2], v, c), _fma4(p[3], v, d)
    return a, b, c, d


@njit
def _get5(at):
    v = _get4(at)
    return v[0], v[1], v[2], v[3], load(at + 256, f32x16)


@njit
def _fma5(p, v, s):
    t = _fma4(p, v, s)
    return t[0], t[1], t[2], t[3], fma(p, v[4], s[4])


@njit
def _add5(sums, source, stride, factors, gap, step, n):
    """Return four sums of five vectors each."""
    a, b, c, d = sums
    for i in range(n):
        v, p = _get5(source + i * stride), _factors(factors + i * step, gap)
        a, b, c, d = _fma5(p[0], v, a), _fma5(p[1], v, b), _fma5(p[2], v, c), _fma5(p[3], v, d)
    return a, b, c, d


@njit
def _put4(at, v):
    store(at, v[0])
    store(at + 64, v[1])
    store(at + 128, v[2])
    store(at + 192, v[3])


@njit
def _put5(at, v):
    _put4(at, v)
    store(at + 256, v[4])


@njit
def _times4(at, d):
    v = _get4(at)
    return v[0] * d, v[1] * d, v[2] * d, v[3] * d


@njit
def _times5(at, d):
    v = _get5(at)
    return v[0] * d, v[1] * d, v[2] * d, v[3] * d, v[4] * d


@njit
def _score(keys, queries, head, out):
    """Write the products of four queries with 64 keys, float32 [4][64]."""
    z = zeros(f32x16)
    if _LONG:
        y = (z, z, z, z)
        a, b, c, d = _add4((y, y, y, y), keys, 4 * PAGE, queries, 4, 16, head)
        _put4(out, a)
        _put4(out + 256, b)
        _put4(out + 512, c)
        _put4(out + 768, d)
    else:
        for i in range(0, 256, 64):
            e, f, g, h = _add1((z, z, z, z), keys + i, 4 * PAGE, queries, 4, 16, head)
            store(out + i, e)
            store(out + i + 256, f)
            store(out + i + 512, g)
            store(out + i + 768, h)


@njit
def _mix(values, weights, n, outputs, wide, decays):
    """Decay four outputs [4][wide]; add ``n`` values times their weights [4][64]."""
    row, column = 4 * wide, int64(0)
    p, q, r, s = decays
    while column < wide:
        rest, at, source = wide - column, outputs + 4 * column, values + 4 * column
        if _LONG and rest >= 80 and rest % 64:
            five = _times5(at, p), _times5(at + row, q), _times5(at + 2 * row, r)
            five = (five[0], five[1], five[2], _times5(at + 3 * row, s))
            five = _add5(five, source, row, weights, 256, 4, n)
            _put5(at, five[0])
            _put5(at + row, five[1])
            _put5(at + 2 * row, five[2])
            _put5(at + 3 * row, five[3])
            column += 80
        elif _LONG and rest >= 64:
            four = _times4(at, p), _times4(at + row, q), _times4(at + 2 * row, r)
            four = (four[0], four[1], four[2], _times4(at + 3 * row, s))
            four = _add4(four, source, row, weights, 256, 4, n)
            _put4(at, four[0])
            _put4(at + row, four[1])
            _put4(at + 2 * row, four[2])
            _put4(at + 3 * row, four[3])
            column += 64
        else:
            a, b = load(at, f32x16) * p, load(at + row, f32x16) * q
            c, d = load(at + 2 * row, f32x16) * r, load(at + 3 * row, f32x16) * s
            a, b, c, d = _add1((a, b, c, d), source, row, weights, 256, 4, n)
            store(at, a)
            store(at + row, b)
            store(at + 2 * row, c)
            store(at + 3 * row, d)
            column += 16


@njit
def _begin(args, part, head, scratch):
    """Lay the part's queries out, scaled, the last one repeated to whole quads; forget the rest."""
    width, scale = args.head, args.scale
    for i in range((part.count + 3) // 4 * 4):
        row = part.first_row + min(int64(i), part.count - 1)
        query = args.queries + row * args.queries_stride + 4 * head * width
        to = scratch + _QUERIES + 16 * (i // 4) * width + 4 * (i % 4)
        for column in range(width):
            store(to + 16 * column, load(query + 4 * column, float32) * scale)
        store(scratch + _STATES + 8 * i, float32(FAR))
        store(scratch + _STATES + 8 * i + 4, float32(0))
        for column in range(0, args.wide, 16):
            store(scratch + _OUTPUTS + 4 * (i * args.wide + column), zeros(f32x16))


@njit
def _weigh(scores, first, end, state, scratch):
    """Turn 64 scores into weights; return the decay."""
    slope = scratch + _NO_SLOPE
    return online_softmax(scores, float32(0), slope, first, int64(0), end, state)


@njit
def _end(args, part, head, scratch):
    """Write the part's outputs, each divided by its sum of weights."""
    width = args.head
    whole = width - width % 16
    for i in range(part.count):
        out = args.out + (part.first_row + i) * args.out_stride + 4 * head * width
        source = scratch + _OUTPUTS + 4 * i * args.wide
        factor = float32(1) / load(scratch + _STATES + 8 * i + 4, float32)
        for column in range(0, whole, 16):
            store(out + 4 * column, load(source + 4 * column, f32x16) * splat(factor, f32x16))
        for column in range(whole, width):
            store(out + 4 * column, load(source + 4 * column, float32) * factor)


@njit
def see(args, first, last):
    """Let items, (head, part), see their stretches."""
    scratch = stack(_SCRATCH)
    store(scratch + _NO_SLOPE, float32(0))
    store(scratch + _NO_SLOPE + 4, int32(0))
    width, wide, n_parts, scores = args.head, args.wide, args.n_parts, scratch + _SCORES
    for item in range(first, last):
        head = item // n_parts
        part = view(args.parts + _PART_BYTES * (item % n_parts), PART)
        _begin(args, part, head, scratch)
        for position in range(0, part.n_keys, PAGE):
            keys, values = _page(args, head, part.first_page + position // PAGE)
            n = min(int64(PAGE), part.n_keys - position)
            for i in range(0, part.count, 4):
                state = scratch + _STATES + 8 * i
                _score(keys, scratch + _QUERIES + 4 * i * width, width, scores)
                d0 = _weigh(scores, position, part.n_keys, state, scratch)
                d1 = _weigh(scores + 256, position, part.n_keys, state + 8, scratch)
                d2 = _weigh(scores + 512, position, part.n_keys, state + 16, scratch)
                d3 = _weigh(scores + 768, position, part.n_keys, state + 24, scratch)
                outputs = scratch + _OUTPUTS + 4 * i * wide
                _mix(values, scores, n, outputs, wide, (d0, d1, d2, d3))
        _end(args, part, head, scratch)

"""Attention over a paged cache with an online softmax: a page of 64 positions at a time.

Up to 16 queries that share a key-value head go through the pages together, four at a time on a
page, so that a key or value is fetched once for them (arXiv 2305.13245); running maximum and sum
as in arXiv 2205.14135. Each chunk
of pages has its own, merged in ascending order: as chunks depend on positions alone, a query's
output does not depend on how a prompt was cut into steps or a sequence split among threads. It
knows no plan; how cached elements are read is handed in (cached.py).
"""

from ggq.jit import njit
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.kernels.softmax import FAR, exp_scalar, online_softmax
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
    load,
    prefetch_far,
    splat,
    stack,
    store,
    view,
    zeros,
)

ATTEND = Struct(
    "attend",
    queries=ROWS,
    out=ROWS,
    n_kv=INT,
    group=INT,  # queries per key-value head
    head=INT,  # columns of a key
    head_v=INT,  # and of a value
    scale=FLOAT,
    softcap=FLOAT,  # 0: none
    window=INT,  # tokens seen to one side, itself one; 0: all; -n: those of its own n
    sinks=INT,  # address of a float32 per head, or 0
    slopes=INT,  # likewise: what a score loses for each position between key and query
    keys=INT,
    values=INT,
    segments=INT,
)
# A segment: consecutive tokens of one sequence.
SEGMENT = Struct(
    "segment",
    first_token=INT,
    count=INT,
    position=INT,
    page_table=INT,
    end=INT,  # unless 0: tokens see what follows them, too, up to here
    begin=INT,  # unless -1: where the picture that ends there begins, whatever the window
)
SEGMENT_BYTES = SEGMENT.nbytes

MAX_HEAD, MAX_KEY = 512, 4096  # columns of a value and of a key
BLOCK = 16  # queries that go through the pages together, fewer where keys are wide
_BLOCK_COLUMNS = 4 * MAX_KEY  # of all their queries
# A block's scratch, in bytes: positions, (maximum, sum of weights), (slope, own
# position), one quad's scores, queries (scaled), sums of weighted values.
_POSITIONS, STATES, _SLOPES, _SCORES = 0, 8 * BLOCK, 16 * BLOCK, 24 * BLOCK
_QUERIES = _SCORES + 4 * 4 * PAGE
SUMS = _QUERIES + 4 * _BLOCK_COLUMNS
CHUNK_SCRATCH = SUMS + 4 * BLOCK * MAX_HEAD
# (maximum, sum of weights) and sums of all chunks so far.
_TOTAL_STATES, _TOTALS = CHUNK_SCRATCH, CHUNK_SCRATCH + 8 * BLOCK
SCRATCH = _TOTALS + 4 * BLOCK * MAX_HEAD


def _chunk(page: int) -> tuple[int, int, int]:
    """Return the number of the chunk that holds ``page``, its first page and one past its last.

    Chunks have 256 positions up to 4096, then twice as many at each doubling of the position: they
    stay few, and at least eight can be attended side by side.
    """
    number, start, end = 0, 0, 64
    while page >= end:
        number, start, end = number + (end - start) // (end // 16), end, 2 * end
    size = end // 16
    index = (page - start) // size
    return number + index, start + index * size, start + (index + 1) * size


chunk = njit(_chunk)


def chunks_of(pages: int) -> int:
    """Return how many chunks that many pages have."""
    return _chunk(pages - 1)[0] + 1


@njit
def scores4(keys, ahead, queries, head, out, size, vector):
    """Write the raw dot products of four queries with 64 positions, float32 [4][64].

    ``ahead``: the page to ask for meanwhile; ``size``: bytes of an element that ``vector`` reads.
    """
    q0, row = queries, 4 * head
    q1, q2, q3 = q0 + row, q0 + 2 * row, q0 + 3 * row
    for part in range(2):  # 32 positions: eight running sums
        a0, a1, b0, b1 = zeros(f32x16), zeros(f32x16), zeros(f32x16), zeros(f32x16)
        c0, c1, d0, d1 = a0, a0, a0, a0
        at = keys + 32 * part * size
        for i in range(head):
            prefetch_far(ahead)
            ahead += 32 * size
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
def mix4(values, ahead, weights, places, sums, width, decays, size, vector):
    """Decay four running outputs [4][width]; add weighted values of positions ``places``.

    ``ahead``: the page to ask for meanwhile; ``size``: bytes of an element that ``vector`` reads.
    """
    row = 4 * width
    d0, d1, d2, d3 = decays
    for column in range(0, width, 32):
        wide = column + 16 < width
        at = sums + 4 * column
        a0, b0 = load(at, f32x16) * d0, load(at + row, f32x16) * d1
        c0, e0 = load(at + 2 * row, f32x16) * d2, load(at + 3 * row, f32x16) * d3
        a1, b1, c1, e1 = a0, b0, c0, e0
        if wide:
            a1, b1 = load(at + 64, f32x16) * d0, load(at + row + 64, f32x16) * d1
            c1, e1 = load(at + 2 * row + 64, f32x16) * d2, load(at + 3 * row + 64, f32x16) * d3
        for j in range(places[0], places[1]):
            prefetch_far(ahead)
            ahead += 32 * size
            source = values + (j * width + column) * size
            v0 = vector(source)
            v1 = vector(source + 16 * size) if wide else v0
            w = weights + 4 * j
            p0, p1 = splat(load(w, float32), f32x16), splat(load(w + 256, float32), f32x16)
            p2, p3 = splat(load(w + 512, float32), f32x16), splat(load(w + 768, float32), f32x16)
            a0, b0, c0, e0 = fma(p0, v0, a0), fma(p1, v0, b0), fma(p2, v0, c0), fma(p3, v0, e0)
            a1, b1, c1, e1 = fma(p0, v1, a1), fma(p1, v1, b1), fma(p2, v1, c1), fma(p3, v1, e1)
        store(at, a0)
        store(at + row, b0)
        store(at + 2 * row, c0)
        store(at + 3 * row, e0)
        if wide:
            store(at + 64, a1)
            store(at + row + 64, b1)
            store(at + 2 * row + 64, c1)
            store(at + 3 * row + 64, e1)


@njit
def window_start(args, segment, position):
    """Return the first position that the query at ``position`` sees."""
    window, begin, start = args.window, segment.begin, int64(0)
    if window > 0:
        start = max(start, position + 1 - window)
    if window < 0:
        start = position - position % -window
    return min(start, begin) if begin >= 0 else start


@njit
def window_end(args, segment, position):
    """Return one past the last position that the query at ``position`` sees."""
    end, window = segment.end, args.window
    if not end:
        return position + 1
    return min(end, position + window) if window and segment.begin < 0 else end


@njit
def place(args, segment, kv, index):
    """Return (row, position, head) of query ``index`` of a segment's key-value head."""
    group = args.group
    token = index // group
    head = kv * group + index % group
    return segment.first_token + token, segment.position + token, head


@njit
def put_query(args, scratch, i, query, where, key):
    """Make the float32 query at ``query`` the block's number ``i``.

    ``where``: see place; ``key``: see visit.
    """
    head, slopes = args.head, args.slopes
    _, position, number = where
    store(scratch + _POSITIONS + 8 * i, position)
    slope = load(slopes + 4 * number, float32) if slopes else float32(0)
    store(scratch + _SLOPES + 8 * i, slope)
    store(scratch + _SLOPES + 8 * i + 4, int32(position))
    scale = splat(args.scale, f32x16)
    to = scratch + _QUERIES + 4 * i * head
    for j in range(0, 4 * head, 64):
        store(to + j, load(query + j, f32x16) * scale)
    key[3](to, head)


@njit
def _forget(states, sums, count, width):
    """Start with nothing seen."""
    for i in range(count):
        store(states + 8 * i, float32(FAR))
        store(states + 8 * i + 4, float32(0))
    for j in range(0, 4 * count * width, 64):
        store(sums + j, zeros(f32x16))


@njit
def _weigh(args, segment, scratch, i, scores, first):
    """Turn 64 scores of the block's query ``i`` into weights; return its decay."""
    position = load(scratch + _POSITIONS + 8 * i, int64)
    start, end = window_start(args, segment, position), window_end(args, segment, position)
    slope, state = scratch + _SLOPES + 8 * i, scratch + STATES + 8 * i
    return online_softmax(scores, args.softcap, slope, first, start, end, state)


@njit
def _weigh_four(args, segment, scratch, i, first):
    """Turn the scores into weights of queries i .. i + 3; return their decays."""
    scores = scratch + _SCORES
    d0 = _weigh(args, segment, scratch, i, scores, first)
    d1 = _weigh(args, segment, scratch, i + 1, scores + 256, first)
    d2 = _weigh(args, segment, scratch, i + 2, scores + 512, first)
    d3 = _weigh(args, segment, scratch, i + 3, scores + 768, first)
    return d0, d1, d2, d3


@njit
def visit(args, segment, kv, pages, count, scratch, key, value):
    """Let a block's ``count`` queries (positions ascending) attend pages [first, last), anew.

    ``key`` and ``value``: (bytes of 32 elements, writer, reader, turner) of cached.py.
    """
    head, width, n_kv = args.head, args.head_v, args.n_kv
    table, scores = segment.page_table, scratch + _SCORES
    key_unit, value_unit = key[0], value[0]
    key_bytes, value_bytes = head * PAGE // 32 * key_unit, width * PAGE // 32 * value_unit
    _forget(scratch + STATES, scratch + SUMS, (count + 3) // 4 * 4, width)
    for number in range(pages[0], pages[1]):
        first = number * PAGE
        at = load(table + 8 * number, int64) * n_kv + kv
        after = load(table + 8 * min(number + 1, pages[1] - 1), int64) * n_kv + kv
        for i in range(0, count, 4):
            lowest = load(scratch + _POSITIONS + 8 * i, int64)
            highest = load(scratch + _POSITIONS + 8 * i + 24, int64)
            low = max(int64(0), window_start(args, segment, lowest) - first)
            high = min(int64(PAGE), window_end(args, segment, highest) - first)
            if low < high:
                keys, values = args.keys, args.values
                queries = scratch + _QUERIES + 4 * i * head
                key[2](keys + at * key_bytes, keys + after * key_bytes, queries, head, scores)
                decays = _weigh_four(args, segment, scratch, i, first)
                sums, ahead = scratch + SUMS + 4 * i * width, values + after * value_bytes
                places = (low, high)
                value[2](values + at * value_bytes, ahead, scores, places, sums, width, decays)
            after = at  # asked for once


@njit
def write(args, out, head, sums, state, value):
    """Divide by the sum of weights (with the head's sink, arXiv 2309.17453); store the output.

    ``sums`` are turned in place as cached values are (``value``: see visit).
    """
    top, total = load(state, float32), load(state + 4, float32)
    sinks, keep = args.sinks, float32(1)
    if sinks:
        sink = load(sinks + 4 * head, float32)
        high = max(top, sink)
        keep = exp_scalar(top - high)
        total = total * keep + exp_scalar(sink - high)
    factor = splat(keep / total, f32x16)
    value[3](sums, args.head_v)
    for i in range(0, args.head_v, 16):
        store(out + 4 * i, load(sums + 4 * i, f32x16) * factor)


@njit
def merge(state, sums, other, others, width):
    """Add what a query saw in a later chunk, ``other`` and ``others``, to ``state`` and ``sums``.

    Where it saw nothing, this changes nothing.
    """
    a, b = load(state, float32), load(other, float32)
    top = max(a, b)
    x, y = exp_scalar(a - top), exp_scalar(b - top)
    store(state, top)
    store(state + 4, load(state + 4, float32) * x + load(other + 4, float32) * y)
    p, q = splat(x, f32x16), splat(y, f32x16)
    for i in range(0, 4 * width, 64):
        store(sums + i, load(sums + i, f32x16) * p + load(others + i, f32x16) * q)


@njit
def block_size(head):
    """Return how many queries of ``head`` columns go through the pages together."""
    return min(int64(BLOCK), _BLOCK_COLUMNS // head // 4 * 4)


@njit
def _visit_chunks(args, segment, kv, pages, count, scratch, key, value):
    """Let a block's queries attend chunk by chunk; leave what they saw in the totals."""
    width = args.head_v
    states, totals = scratch + _TOTAL_STATES, scratch + _TOTALS
    _forget(states, totals, count, width)
    page = pages[0]
    while page < pages[1]:
        end = min(chunk(page)[2], pages[1])
        visit(args, segment, kv, (page, end), count, scratch, key, value)
        for i in range(count):
            sums = scratch + SUMS + 4 * i * width
            merge(states + 8 * i, totals + 4 * i * width, scratch + STATES + 8 * i, sums, width)
        page = end


@njit
def attend(args, first, last, key, value):
    """Attend items: (segment, key-value head); ``key``, ``value``: see visit."""
    scratch = stack(SCRATCH)
    n_kv, group, head = args.n_kv, args.group, args.head
    for item in range(first, last):
        segment = view(args.segments + SEGMENT_BYTES * (item // n_kv), SEGMENT)
        kv = item % n_kv
        total, size = segment.count * group, block_size(head)
        index = int64(0)
        while index < total:  # a range whose step is known at run time may raise, says numba
            count = min(size, total - index)
            low, high = int64(0), int64(0)
            for i in range((count + 3) // 4 * 4):
                row, position, h = place(args, segment, kv, index + min(i, count - 1))
                query = args.queries + row * args.queries_stride + 4 * h * head
                put_query(args, scratch, i, query, (row, position, h), key)
                low, high = position if i == 0 else low, position
            end = window_end(args, segment, high)
            pages = (window_start(args, segment, low) // PAGE, (end - 1) // PAGE + 1)
            _visit_chunks(args, segment, kv, pages, count, scratch, key, value)
            for i in range(count):
                row, position, h = place(args, segment, kv, index + i)
                out = args.out + row * args.out_stride
                sums = scratch + _TOTALS + 4 * i * args.head_v
                out += 4 * h * args.head_v
                write(args, out, h, sums, scratch + _TOTAL_STATES + 8 * i, value)
            index += size

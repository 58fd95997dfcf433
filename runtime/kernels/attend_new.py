"""Decoding's whole attention in one pass: rotate, store, attend, and quantize the output.

An item is (segment, key-value head, part of the positions): long sequences are split into whole
chunks, so that a few heads keep many threads busy (as in Flash-Decoding), and whoever ends last
merges all chunks in order; no thread waits for another. It extends attend.py's argument block.
"""

from ggq.jit import njit
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.kernels.attend import (
    ATTEND,
    CHUNK_SCRATCH,
    MAX_KEY,
    SEGMENT,
    SEGMENT_BYTES,
    STATES,
    SUMS,
    block_size,
    chunk,
    merge,
    place,
    put_query,
    visit,
    window_start,
    write,
)
from ggq.runtime.kernels.rotate import rotate
from ggq.runtime.kernels.rows import quantize_32
from ggq.simd import (
    INT,
    ROWS,
    Struct,
    atomic_add,
    atomic_store,
    f32x16,
    int64,
    load,
    stack,
    store,
    view,
    zeros,
)

ATTEND_NEW = Struct(
    "attend_new",
    base=ATTEND,
    new_keys=ROWS,  # none: all are stored
    new_values=ROWS,
    query_table=INT,  # cosines and sines
    key_table=INT,
    half=INT,  # 0: no rotation
    neox=INT,
    quantized=ROWS,  # none: the output stays float32
    splits=INT,  # address of the most parts of any segment
    partials=ROWS,
    max_chunks=INT,  # of a sequence: what partials has room for
    ended=INT,  # address of counts of ended parts, one per segment and key-value head
)

MAX_SPLITS = 16
_KEY_BYTES = 4 * MAX_KEY


@njit
def _store_new(args, segment, kv, scratch, key, value):
    """Rotate and store the segment's new keys of a head, store its values."""
    n_kv, width, width_v = args.n_kv, args.head, args.head_v
    half = args.half
    for i in range(segment.count):
        row, position = segment.first_token + i, segment.position + i
        source = args.new_keys + row * args.new_keys_stride + 4 * kv * width
        cos = args.key_table + 8 * half * row
        rotate(source, scratch, cos, half, args.neox, width)
        page = load(segment.page_table + 8 * (position // PAGE), int64)
        at, offset = page * n_kv + kv, position % PAGE
        key[1](args.keys + at * (width * PAGE // 32 * key[0]), offset, scratch, width)
        source = args.new_values + row * args.new_values_stride + 4 * kv * width_v
        to = args.values + at * (width_v * PAGE // 32 * value[0])
        value[1](to, offset, source, width_v)


@njit
def _fill(args, segment, kv, index, count, scratch, rotated, key):
    """Rotate queries index .. index + count - 1 into the block, padded to whole quads."""
    head, half = args.head, args.half
    for i in range((count + 3) // 4 * 4):
        row, position, h = place(args, segment, kv, index + min(i, count - 1))
        query = args.queries + row * args.queries_stride + 4 * h * head
        cos = args.query_table + 8 * half * row
        rotate(query, rotated, cos, half, args.neox, head)
        put_query(args, scratch, i, rotated, (row, position, h), key)


@njit
def _partial(args, segment, kv, index, number):
    """Return where what a query saw in the segment's chunk ``number`` stands: (state, sums)."""
    group, size = args.group, 64 + 4 * args.head_v
    row, _, head = place(args, segment, kv, index)
    at = (kv * args.max_chunks + number) * group + head - kv * group
    return args.partials + row * args.partials_stride + at * size


@njit
def _keep(args, segment, kv, index, number, scratch, i):
    """Leave what query ``index``, the block's number ``i``, saw for whoever merges."""
    to, width = _partial(args, segment, kv, index, number), args.head_v
    store(to, load(scratch + STATES + 8 * i, int64))
    sums = scratch + SUMS + 4 * i * width
    for j in range(0, 4 * width, 64):
        store(to + 64 + j, load(sums + j, f32x16))


@njit
def _merge_all(args, segment, kv, total, n_chunks, value):
    """Merge the chunks of a head's queries, write their outputs."""
    width = args.head_v
    for index in range(total):
        to = _partial(args, segment, kv, index, int64(0))
        for number in range(1, n_chunks):
            other = _partial(args, segment, kv, index, number)
            merge(to, to + 64, other, other + 64, width)
        _output(args, segment, kv, index, to + 64, to, value)


@njit
def _output(args, segment, kv, index, sums, state, value):
    row, _, head = place(args, segment, kv, index)
    out = args.out + row * args.out_stride + 4 * head * args.head_v
    write(args, out, head, sums, state, value)


@njit
def _quantize_group(args, token, kv):
    """Quantize a group's output columns; the last group also clears the padding."""
    columns = args.group * args.head_v
    width = columns * args.n_kv
    n = (width + 255) // 256 * 256
    x = args.out + token * args.out_stride
    to = args.quantized + token * args.quantized_stride
    first = kv * columns // 32
    for block in range(first, first + columns // 32):
        at = x + 128 * block
        quantize_32(load(at, f32x16), load(at + 64, f32x16), to, n, block)
    if kv == args.n_kv - 1:
        for block in range(width // 32, n // 32):
            quantize_32(zeros(f32x16), zeros(f32x16), to, n, block)


@njit
def _pages(args, segment):
    """Return the first page that a segment's queries see and one past the last."""
    position = segment.position
    first = window_start(args, segment, position) // PAGE
    return first, (position + segment.count - 1) // PAGE + 1


@njit
def _part_of(segment, pages, page, end, splits):
    """Return which part has the chunk of pages [page, end): the last has all new positions."""
    if end * PAGE > segment.position:
        return splits - 1
    return (page - pages[0]) * splits // (pages[1] - pages[0])


@njit
def _attend_part(args, segment, kv, split, splits, n_chunks, scratch, rotated, key, value):
    """Let a segment's queries of a head attend the chunks of part ``split``."""
    if split == splits - 1 and args.new_keys:
        _store_new(args, segment, kv, rotated, key, value)
    total, size, pages = segment.count * args.group, block_size(args.head), _pages(args, segment)
    index = int64(0)
    while index < total:  # a range whose step is known at run time may raise, says numba
        n, number, page = min(size, total - index), 0, pages[0]
        _fill(args, segment, kv, index, n, scratch, rotated, key)
        while page < pages[1]:
            end = min(chunk(page)[2], pages[1])
            if _part_of(segment, pages, page, end, splits) == split:
                visit(args, segment, kv, (page, end), n, scratch, key, value)
                for i in range(n):
                    if n_chunks == 1:
                        sums = scratch + SUMS + 4 * i * args.head_v
                        state = scratch + STATES + 8 * i
                        _output(args, segment, kv, index + i, sums, state, value)
                    else:
                        _keep(args, segment, kv, index + i, number, scratch, i)
            number, page = number + 1, end
        index += size


@njit
def attend_new(args, first, last, key, value):
    """Rotate, store and attend items; ``key`` and ``value``: see attend.visit."""
    scratch, rotated = stack(CHUNK_SCRATCH), stack(_KEY_BYTES)
    n_kv, most = args.n_kv, load(args.splits, int64)
    for item in range(first, last):
        head, split = item // most, item % most
        segment = view(args.segments + SEGMENT_BYTES * (head // n_kv), SEGMENT)
        kv, pages = head % n_kv, _pages(args, segment)
        n_chunks = chunk(pages[1] - 1)[0] - chunk(pages[0])[0] + 1
        splits = min(most, n_chunks)
        if split >= splits:
            continue
        _attend_part(args, segment, kv, split, splits, n_chunks, scratch, rotated, key, value)
        if n_chunks > 1:
            if atomic_add(args.ended + 8 * head, 1) < splits - 1:
                continue
            atomic_store(args.ended + 8 * head, 0)
            _merge_all(args, segment, kv, segment.count * args.group, n_chunks, value)
        if args.quantized:
            for i in range(segment.count):
                _quantize_group(args, segment.first_token + i, kv)

"""Decoding's whole attention in one pass: rotate, store, attend, and quantize the output.

An item is (segment, key-value head, part of the positions): long sequences are split into whole
chunks, so that a few heads keep many threads busy (as in Flash-Decoding), and whoever ends last
merges all chunks in order; no thread waits for another. It extends attend.py's argument block.
"""

from numba import int64

from ggq.jit import njit
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.kernels.atomic import atomic_add, atomic_store
from ggq.runtime.kernels.attend import (
    COUNT,
    FIRST_TOKEN,
    GROUP,
    HEAD,
    HEAD_V,
    KEYS,
    N_KV,
    OUT,
    OUT_STRIDE,
    PAGE_TABLE,
    POSITION,
    SEGMENT_BYTES,
    SEGMENTS,
    STATES,
    SUMS,
    VALUES,
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
from ggq.simd import f32x16, load, stack, store, zeros

# Argument slots behind attend.py's, in bytes.
NEW_KEYS, KEY_STRIDE, NEW_VALUES, VALUE_STRIDE = 120, 128, 136, 144  # no NEW_KEYS: all are stored
QUERY_TABLE, KEY_TABLE, HALF, NEOX = 152, 160, 168, 176  # HALF 0: no rotation
QUANTIZED, QUANTIZED_STRIDE = 184, 192  # 0: the output stays float32
SPLITS, PARTIALS, PARTIAL_STRIDE, ENDED, MAX_CHUNKS = 200, 208, 216, 224, 232

MAX_SPLITS = 16


@njit
def _word(args, at):
    return load(args + at, int64)


@njit
def _store_new(args, segment, kv, scratch, key, value):
    """Rotate and store the segment's new keys of a head, store its values."""
    n_kv, width, width_v = _word(args, N_KV), _word(args, HEAD), _word(args, HEAD_V)
    half = _word(args, HALF)
    for i in range(_word(segment, COUNT)):
        row, position = _word(segment, FIRST_TOKEN) + i, _word(segment, POSITION) + i
        source = _word(args, NEW_KEYS) + row * _word(args, KEY_STRIDE) + 4 * kv * width
        cos = _word(args, KEY_TABLE) + 8 * half * row
        rotate(source, scratch, cos, half, _word(args, NEOX), width)
        page = load(_word(segment, PAGE_TABLE) + 8 * (position // PAGE), int64)
        at, offset = page * n_kv + kv, position % PAGE
        key[1](_word(args, KEYS) + at * (width * PAGE // 32 * key[0]), offset, scratch, width)
        source = _word(args, NEW_VALUES) + row * _word(args, VALUE_STRIDE) + 4 * kv * width_v
        to = _word(args, VALUES) + at * (width_v * PAGE // 32 * value[0])
        value[1](to, offset, source, width_v)


@njit
def _fill(args, segment, kv, index, count, scratch, turned):
    """Rotate queries index .. index + count - 1 into the block, padded to whole quads."""
    head, half = _word(args, HEAD), _word(args, HALF)
    for i in range((count + 3) // 4 * 4):
        row, position, h = place(args, segment, kv, index + min(i, count - 1))
        query = _word(args, 0) + row * _word(args, 8) + 4 * h * head
        cos = _word(args, QUERY_TABLE) + 8 * half * row
        rotate(query, turned, cos, half, _word(args, NEOX), head)
        put_query(args, scratch, i, turned, position)


@njit
def _partial(args, segment, kv, index, number):
    """Return where what a query saw in the segment's chunk ``number`` stands: (state, sums)."""
    group, size = _word(args, GROUP), 64 + 4 * _word(args, HEAD_V)
    row, _, head = place(args, segment, kv, index)
    at = (kv * _word(args, MAX_CHUNKS) + number) * group + head - kv * group
    return _word(args, PARTIALS) + row * _word(args, PARTIAL_STRIDE) + at * size


@njit
def _keep(args, segment, kv, index, number, scratch, i):
    """Leave what query ``index``, the block's number ``i``, saw for whoever merges."""
    to, width = _partial(args, segment, kv, index, number), _word(args, HEAD_V)
    store(to, load(scratch + STATES + 8 * i, int64))
    sums = scratch + SUMS + 4 * i * width
    for j in range(0, 4 * width, 64):
        store(to + 64 + j, load(sums + j, f32x16))


@njit
def _merge_all(args, segment, kv, total, n_chunks):
    """Merge the chunks of a head's queries, write their outputs."""
    width = _word(args, HEAD_V)
    for index in range(total):
        to = _partial(args, segment, kv, index, int64(0))
        for number in range(1, n_chunks):
            other = _partial(args, segment, kv, index, number)
            merge(to, to + 64, other, other + 64, width)
        _output(args, segment, kv, index, to + 64, to)


@njit
def _output(args, segment, kv, index, sums, state):
    row, _, head = place(args, segment, kv, index)
    out = _word(args, OUT) + row * _word(args, OUT_STRIDE) + 4 * head * _word(args, HEAD_V)
    write(args, out, head, sums, state)


@njit
def _quantize_group(args, token, kv):
    """Quantize a group's output columns; the last group also clears the padding."""
    columns = _word(args, GROUP) * _word(args, HEAD_V)
    width = columns * _word(args, N_KV)
    n = (width + 255) // 256 * 256
    x = _word(args, OUT) + token * _word(args, OUT_STRIDE)
    to = _word(args, QUANTIZED) + token * _word(args, QUANTIZED_STRIDE)
    first = kv * columns // 32
    for block in range(first, first + columns // 32):
        at = x + 128 * block
        quantize_32(load(at, f32x16), load(at + 64, f32x16), to, n, block)
    if kv == _word(args, N_KV) - 1:
        for block in range(width // 32, n // 32):
            quantize_32(zeros(f32x16), zeros(f32x16), to, n, block)


@njit
def _pages(args, segment):
    """Return the first page that a segment's queries see and one past the last."""
    position = _word(segment, POSITION)
    last = position + _word(segment, COUNT) - 1
    return window_start(args, position) // PAGE, last // PAGE + 1


@njit
def _part_of(segment, pages, page, end, splits):
    """Return which part has the chunk of pages [page, end): the last one has all new positions."""
    if end * PAGE > _word(segment, POSITION):
        return splits - 1
    return (page - pages[0]) * splits // (pages[1] - pages[0])


@njit
def _attend_part(args, segment, kv, split, splits, n_chunks, scratch, turned, key, value):
    """Let a segment's queries of a head attend the chunks of part ``split``."""
    if split == splits - 1 and _word(args, NEW_KEYS):
        _store_new(args, segment, kv, turned, key, value)
    total, size = _word(segment, COUNT) * _word(args, GROUP), block_size(_word(args, HEAD))
    pages = _pages(args, segment)
    for index in range(0, total, size):
        n, number, page = min(size, total - index), 0, pages[0]
        _fill(args, segment, kv, index, n, scratch, turned)
        while page < pages[1]:
            end = min(chunk(page)[2], pages[1])
            if _part_of(segment, pages, page, end, splits) == split:
                visit(args, segment, kv, (page, end), n, scratch, key, value)
                for i in range(n):
                    if n_chunks == 1:
                        sums = scratch + SUMS + 4 * i * _word(args, HEAD_V)
                        _output(args, segment, kv, index + i, sums, scratch + STATES + 8 * i)
                    else:
                        _keep(args, segment, kv, index + i, number, scratch, i)
            number, page = number + 1, end


@njit
def attend_new(args, first, last, key, value):
    """Rotate, store and attend items; ``key`` and ``value``: see attend.visit."""
    scratch, turned = stack(99584), stack(16384)  # CHUNK_SCRATCH, and a key: MAX_KEY floats
    n_kv, most = _word(args, N_KV), load(_word(args, SPLITS), int64)
    for item in range(first, last):
        head, split = item // most, item % most
        segment, kv = _word(args, SEGMENTS) + SEGMENT_BYTES * (head // n_kv), head % n_kv
        pages = _pages(args, segment)
        n_chunks = chunk(pages[1] - 1)[0] - chunk(pages[0])[0] + 1
        splits = min(most, n_chunks)
        if split >= splits:
            continue
        _attend_part(args, segment, kv, split, splits, n_chunks, scratch, turned, key, value)
        if n_chunks > 1:
            if atomic_add(_word(args, ENDED) + 8 * head, 1) < splits - 1:
                continue
            atomic_store(_word(args, ENDED) + 8 * head, 0)
            _merge_all(args, segment, kv, _word(segment, COUNT) * _word(args, GROUP), n_chunks)
        if _word(args, QUANTIZED):
            for i in range(_word(segment, COUNT)):
                _quantize_group(args, _word(segment, FIRST_TOKEN) + i, kv)

"""Decoding's whole attention in one pass over (segment, key-value head): rotate, store, attend.

Every step of a head depends only on that head, so no thread waits for another between them. It
extends attend.py's argument block.
"""

from numba import int64

from ggq.jit import njit
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
    QUERIES,
    QUERY_STRIDE,
    SEGMENT_BYTES,
    SEGMENTS,
    VALUES,
    attend,
)
from ggq.runtime.kernels.rotate import rotate
from ggq.runtime.kernels.rows import quantize_32
from ggq.runtime.kvcache import PAGE
from ggq.simd import f32x16, load, stack, zeros

# Argument slots behind attend.py's, in bytes.
NEW_QUERIES, NEW_QUERY_STRIDE = 128, 136  # before rotation; rotated ones go to QUERIES
NEW_KEYS, KEY_STRIDE, NEW_VALUES, VALUE_STRIDE = 144, 152, 160, 168
QUERY_TABLE, KEY_TABLE, HALF, NEOX = 176, 184, 192, 200
QUANTIZED, QUANTIZED_STRIDE = 208, 216  # 0: the output stays float32


@njit
def _word(args, at):
    return load(args + at, int64)


@njit
def _rotate_queries(args, token, kv):
    width, half, group = _word(args, HEAD), _word(args, HALF), _word(args, GROUP)
    cos = _word(args, QUERY_TABLE) + 8 * half * token
    for head in range(kv * group, (kv + 1) * group):
        x = _word(args, NEW_QUERIES) + token * _word(args, NEW_QUERY_STRIDE) + 4 * head * width
        out = _word(args, QUERIES) + token * _word(args, QUERY_STRIDE) + 4 * head * width
        rotate(x, out, cos, half, _word(args, NEOX), width)


@njit
def _store_head(args, segment, token, position, kv, scratch, unit, put_key, put_value):
    """Rotate and store one key, store one value."""
    n_kv, width, width_v = _word(args, N_KV), _word(args, HEAD), _word(args, HEAD_V)
    half = _word(args, HALF)
    key = _word(args, NEW_KEYS) + token * _word(args, KEY_STRIDE) + 4 * kv * width
    cos = _word(args, KEY_TABLE) + 8 * half * token
    rotate(key, scratch, cos, half, _word(args, NEOX), width)
    page = load(_word(segment, PAGE_TABLE) + 8 * (position // PAGE), int64)
    place, offset = page * n_kv + kv, position % PAGE
    put_key(_word(args, KEYS) + place * (width * PAGE // 32 * unit), offset, scratch, width)
    value = _word(args, NEW_VALUES) + token * _word(args, VALUE_STRIDE) + 4 * kv * width_v
    to = _word(args, VALUES) + place * (width_v * PAGE // 32 * unit)
    put_value(to, offset, value, width_v)


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
def attend_new(args, first, last, unit, scores, mix, put_key, put_value):
    """Rotate, store and attend items (segment, key-value head); see attend and cached.py."""
    n_kv, scratch = _word(args, N_KV), stack(2048)  # a key: MAX_HEAD floats
    for item in range(first, last):
        segment, kv = _word(args, SEGMENTS) + SEGMENT_BYTES * (item // n_kv), item % n_kv
        start = _word(segment, FIRST_TOKEN)
        for i in range(_word(segment, COUNT)):
            _rotate_queries(args, start + i, kv)
            position = _word(segment, POSITION) + i
            _store_head(args, segment, start + i, position, kv, scratch, unit, put_key, put_value)
        attend(args, item, item + 1, unit, scores, mix)
        if _word(args, QUANTIZED):
            for i in range(_word(segment, COUNT)):
                _quantize_group(args, start + i, kv)

"""Writing new keys and values into the paged cache; keys are transposed within their page."""

from numba import int64

from ggq.jit import njit
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.kernels.attend import COUNT, FIRST_TOKEN, PAGE_TABLE, POSITION, SEGMENT_BYTES
from ggq.simd import load

# Argument slots, in bytes.
NEW_KEYS, KEY_STRIDE, NEW_VALUES, VALUE_STRIDE = 0, 8, 16, 24
N_KV, HEAD, HEAD_V = 32, 40, 48
KEYS, VALUES, SEGMENTS = 56, 64, 72


@njit
def store_new(args, first, last, key, value):
    """Store the keys and values of segments; ``key`` and ``value``: see attend.visit."""
    n_kv, head, width = (
        load(args + N_KV, int64),
        load(args + HEAD, int64),
        load(args + HEAD_V, int64),
    )
    for item in range(first, last):
        segment = load(args + SEGMENTS, int64) + SEGMENT_BYTES * item
        table = load(segment + PAGE_TABLE, int64)
        for i in range(load(segment + COUNT, int64)):
            token = load(segment + FIRST_TOKEN, int64) + i
            position = load(segment + POSITION, int64) + i
            page, offset = load(table + 8 * (position // PAGE), int64), position % PAGE
            k = load(args + NEW_KEYS, int64) + token * load(args + KEY_STRIDE, int64)
            v = load(args + NEW_VALUES, int64) + token * load(args + VALUE_STRIDE, int64)
            for kv in range(n_kv):
                place = page * n_kv + kv
                keys = load(args + KEYS, int64) + place * (head * PAGE // 32 * key[0])
                key[1](keys, offset, k + 4 * kv * head, head)
                values = load(args + VALUES, int64) + place * (width * PAGE // 32 * value[0])
                value[1](values, offset, v + 4 * kv * width, width)

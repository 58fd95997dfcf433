"""Writing new keys and values into the paged cache; keys are transposed within their page."""

from ggq.jit import njit
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.kernels.attend import SEGMENT, SEGMENT_BYTES
from ggq.simd import INT, ROWS, Struct, int64, load, view

STORE = Struct(
    "store",
    new_keys=ROWS,
    new_values=ROWS,
    n_kv=INT,
    head=INT,
    head_v=INT,
    keys=INT,
    values=INT,
    segments=INT,
)


@njit
def store_new(args, first, last, key, value):
    """Store the keys and values of segments; ``key`` and ``value``: see attend.visit."""
    n_kv, head, width = args.n_kv, args.head, args.head_v
    for item in range(first, last):
        segment = view(args.segments + SEGMENT_BYTES * item, SEGMENT)
        table = segment.page_table
        for i in range(segment.count):
            token, position = segment.first_token + i, segment.position + i
            page, offset = load(table + 8 * (position // PAGE), int64), position % PAGE
            k = args.new_keys + token * args.new_keys_stride
            v = args.new_values + token * args.new_values_stride
            for kv in range(n_kv):
                place = page * n_kv + kv
                keys = args.keys + place * (head * PAGE // 32 * key[0])
                key[1](keys, offset, k + 4 * kv * head, head)
                values = args.values + place * (width * PAGE // 32 * value[0])
                value[1](values, offset, v + 4 * kv * width, width)

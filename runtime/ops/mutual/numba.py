"""mutual as plan rows: keys and values go to pages of a layer, (segment, head) pairs attend.

The kernels are those of attention over a cache: each stretch is a sequence that is seen whole. All
layers use the same pages, one after the other.
"""

import numpy as np

from ggq.jit import kernel
from ggq.runtime.backends.numba import elementwise
from ggq.runtime.backends.numba.plan import ONE, Work
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.kernels.attend import SEGMENT
from ggq.runtime.ops.attention.numba import KERNELS
from ggq.simd import INT, ROWS, f32x16, float32, load, store, zeros

_SEGMENT_ROWS = 16  # as many as go through the pages together


@kernel(x=ROWS, out=ROWS, n_head=INT, width=INT, wide=INT)
def _spread(args, first, last):
    """Copy heads of ``width`` columns to such of ``wide``: cut, or with zeros behind."""
    width, wide = args.width, args.wide
    kept = min(width, wide)
    whole = kept - kept % 16
    for item in range(first, last):
        for head in range(args.n_head):
            x = args.x + item * args.x_stride + 4 * head * width
            to = args.out + item * args.out_stride + 4 * head * wide
            for i in range(0, whole, 16):
                store(to + 4 * i, load(x + 4 * i, f32x16))
            if whole < kept and wide > width:
                store(to + 4 * whole, zeros(f32x16))
            for i in range(whole, kept):
                store(to + 4 * i, load(x + 4 * i, float32))


class _Pages:
    """Where keys and values lie, and which rows go through which of them."""

    def __init__(self, n, n_head, width, bounds):
        starts = [0, *bounds[:-1]]
        counts = [-(-(end - start) // PAGE) for start, end in zip(starts, bounds, strict=True)]
        table = np.arange(sum(counts), dtype=np.int64)
        segments, page = [], 0
        for start, end, count in zip(starts, bounds, counts, strict=True):
            address = table.ctypes.data + 8 * page
            for first in range(start, end, _SEGMENT_ROWS):
                one = SEGMENT.filled(
                    first_token=first,
                    count=min(_SEGMENT_ROWS, end - first),
                    position=first - start,
                    page_table=address,
                    end=end - start,
                    begin=-1,
                )
                segments.append(one)
            page += count
        self.table, self.segments = table, np.array(segments, np.int64)
        self.keys, self.values = (
            np.zeros(sum(counts) * n_head * width * PAGE, np.float32) for _ in range(2)
        )


def _spread_heads(backend, x, n_head, width, wide):
    """Return x with heads of another width."""
    if width == wide:
        return x
    places = {"n_head": n_head, "width": width, "wide": wide}
    return elementwise.record_one(backend, "spread", _spread, x, n_head * wide, **places)


def run(backend, q, k, v, spec, bounds):
    """Record storing and attending."""
    n, n_head, width = backend.count(q.slot), spec.n_head, spec.head_dim
    wide = -(-width // 16) * 16
    ends = tuple(bounds or [n])
    pages = backend.once(("pages", n_head, wide, ends), lambda: _Pages(n, n_head, wide, list(ends)))
    q, k, v = (_spread_heads(backend, x, n_head, width, wide) for x in (q, k, v))
    kernels, recorder = KERNELS["f32", "f32"], backend.recorder
    place = {
        "n_kv": n_head,
        "head": wide,
        "head_v": wide,
        "keys": pages.keys.ctypes.data,
        "values": pages.values.ctypes.data,
        "segments": pages.segments.ctypes.data,
    }

    def make(value, form, residual):
        queries, keys, values, out = q.f32(), k.f32(), v.f32(), backend.new(value)
        recorder.row(
            "store kv",
            kernels.store,
            Work(items=len(pages.segments), slot=ONE),
            reads=[keys, values],
            writes=[pages],
            new_keys=keys,
            new_values=values,
            **place,
        )
        recorder.row(
            "attention",
            kernels.attend,
            Work(items=n_head * len(pages.segments), slot=ONE),
            reads=[queries, pages],
            writes=[out],
            queries=queries,
            out=out,
            group=1,
            scale=spec.scale,
            softcap=0.0,
            window=None,
            sinks=None,
            slopes=None,
            **place,
        )
        return out

    mixed = backend.value(n_head * wide, q.slot, make)
    return _spread_heads(backend, mixed, n_head, wide, width)

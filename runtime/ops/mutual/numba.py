"""mutual as plan rows: keys and values go to pages by head, (head, part of a stretch) pairs see.

All layers use the same pages, one after the other.
"""

import numpy as np

from ggq.errors import ModelError
from ggq.jit import kernel
from ggq.runtime.backends.numba.plan import ONE, Work
from ggq.runtime.kernels.mutual import FILL, MAX_WIDTH, PAGE, PART, SEE, fill, see


@kernel(FILL)
def _fill(args, first, last):
    fill(args, first, last)


@kernel(SEE)
def _see(args, first, last):
    see(args, first, last)


class _Pages:
    """Where keys and values lie, and the parts: a page's rows each."""

    def __init__(self, n_head, width, wide, bounds):
        parts, page = [], 0
        for start, end in zip([0, *bounds[:-1]], bounds, strict=True):
            for first in range(start, end, PAGE):
                count = min(PAGE, end - first)
                one = PART.filled(first_row=first, count=count, first_page=page, n_keys=end - start)
                parts.append(one)
            page = len(parts)
        self.parts, n = np.array(parts, np.int64), len(parts)
        # What lies behind a stretch's last row stays zero: its weights are zero, too.
        self.keys = np.zeros(n * n_head * width * PAGE, np.float32)
        self.values = np.zeros(n * n_head * wide * PAGE, np.float32)


def run(backend, q, k, v, spec, bounds):
    """Record storing and seeing."""
    n, n_head, width = backend.count(q.slot), spec.n_head, spec.head_dim
    if width > MAX_WIDTH:
        raise ModelError(f"heads of {width} columns: the CPU takes up to {MAX_WIDTH}")
    wide = -(-width // 16) * 16
    ends = tuple(bounds or [n])
    pages = backend.once(("pages", n_head, width, ends), lambda: _Pages(n_head, width, wide, ends))
    n_parts = len(pages.parts)
    place = {
        "n_head": n_head,
        "head": width,
        "wide": wide,
        "n_pages": n_parts,
        "keys": pages.keys.ctypes.data,
        "values": pages.values.ctypes.data,
        "parts": pages.parts.ctypes.data,
    }

    def make(value, form, residual):
        queries, keys, values, out = q.f32(), k.f32(), v.f32(), backend.new(value)
        backend.recorder.row(
            "store kv",
            _fill,
            Work(items=n_parts, slot=ONE),
            reads=[keys, values],
            writes=[pages],
            new_keys=keys,
            new_values=values,
            **place,
        )
        backend.recorder.row(
            "attention",
            _see,
            Work(items=n_head * n_parts, slot=ONE),
            reads=[queries, pages],
            writes=[out],
            queries=queries,
            out=out,
            n_parts=n_parts,
            scale=spec.scale,
            **place,
        )
        return out

    return backend.value(n_head * width, q.slot, make)

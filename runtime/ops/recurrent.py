"""What the recurrences over a layer's state share: rows of the state, and their plan rows.

A state is [head][16 columns][rows] of one vector each; 16 columns of one sequence are an item.
"""

import math

from ggq.jit import njit
from ggq.runtime.backends.numba.plan import PARTS, Work
from ggq.simd import f32x16, float32, fma, load, splat, store

__all__ = ["move_row", "record", "softplus", "spread"]


@njit
def spread(address):
    """Return the float32 at ``address`` in every lane."""
    return splat(load(address, float32), f32x16)


@njit
def move_row(at, k, q, decay, step, total):
    """Decay one row of the state, add k times the step; return total + row * q."""
    row = fma(spread(k), step, load(at, f32x16) * decay)
    store(at, row)
    return fma(row, spread(q), total)


@njit
def softplus(x):
    """Return log(1 + e^x) of a number."""
    return max(x, float32(0)) + float32(math.log1p(math.exp(-abs(x))))


def record(backend, label, kernel, inputs, layer, width, **settings):
    """Record ``kernel`` over the ``inputs``, by argument, and the second state of ``layer``.

    Returns a lazy value of ``width`` columns. ``settings``: the kernel's further arguments; an
    item is 16 columns.
    """
    first = next(iter(inputs.values()))

    def make(value, form, residual):
        rows, out = {name: v.f32() for name, v in inputs.items()}, backend.new(value)
        backend.recorder.row(
            label,
            kernel,
            Work(items=width // 16, slot=PARTS, chunk=2),
            reads=list(rows.values()),
            writes=[out, backend.cache.state_names[layer][1]],
            **rows,
            out=out,
            parts=backend.inputs.parts,
            state_offset=backend.cache.state_offsets[layer][1],
            **settings,
        )
        return out

    return backend.value(width, first.slot, make)

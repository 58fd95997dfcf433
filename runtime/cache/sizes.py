"""What a cache takes: the bytes of its columns, the positions that windowed layers keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ggq.errors import UsageError
from ggq.models.layers.base import Memory
from ggq.runtime.cache.kinds import CACHE_TYPES, Kind, kinds_of
from ggq.runtime.cache.layout import PAGE, STEP_TOKENS

__all__ = [
    "ENDS",
    "cache_bytes",
    "columns_of",
    "recent_positions",
]

_BLOCKS = {"q8_0": 34, "q4_0": 18}  # bytes of 32 columns
ENDS = 2  # prompts' ends that a windowed sequence can go back to


def columns_of(kind: str, n: int) -> int:
    """Return the elements that ``n`` columns take: a half and 32 codes of quantized types."""
    if kind not in _BLOCKS:
        return n
    if n % 32:
        raise UsageError(f"cache type {kind}: heads of {n} columns, no multiple of 32")
    return n * _BLOCKS[kind] // 32


def _width(kind: str, n: int) -> int:
    """Return the bytes that ``n`` columns take."""
    return columns_of(kind, n) * np.dtype(CACHE_TYPES[kind]).itemsize


def recent_positions(window: int, n_ctx: int) -> int:
    """Return the positions that a sequence of ``n_ctx`` tokens holds at most in windowed layers.

    They are the window, a page to go back by, a step, and the windows before two prompts' ends.
    """
    pages = -(-(window + PAGE + STEP_TOKENS) // PAGE) + 1 + ENDS * (-(-window // PAGE) + 1)
    return min(pages, -(-n_ctx // PAGE)) * PAGE


def cache_bytes(layers: Sequence[Memory], n_ctx: int, kind: Kind = "f16") -> int:
    """Return the bytes that a cache of ``n_ctx`` positions of one sequence takes at most."""
    pages = -(-n_ctx // PAGE)
    key, value = kinds_of(kind)
    window = max((layer.window or 0 for layer in layers), default=0)
    total = 0
    for layer in layers:
        positions = recent_positions(window, n_ctx) if layer.window else pages * PAGE
        widths = _width(key, layer.head_dim) + _width(value, layer.head_dim_v)
        total += positions * layer.n_head_kv * widths
    return total

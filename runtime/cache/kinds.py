"""Types of the KV cache by name; it knows no cache."""

from __future__ import annotations

import numpy as np

from ggq.errors import UsageError, printable

__all__ = ["CACHE_TYPES", "Kind", "kinds_of"]

CACHE_TYPES = {"f16": np.float16, "f32": np.float32, "q8_0": np.uint8, "q4_0": np.uint8}

Kind = str | tuple[str, str]  # a cache type, or those of keys and of values


def kinds_of(kind: Kind) -> tuple[str, str]:
    """Return the types of keys and of values; UsageError where one is unknown."""
    kinds = (kind, kind) if isinstance(kind, str) else kind
    for name in kinds:
        if name not in CACHE_TYPES:
            raise UsageError(f"cache type {printable(name)}: one of {', '.join(CACHE_TYPES)}")
    return kinds

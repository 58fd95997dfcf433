"""Codes in 32-bit words, the first in the lowest bits."""

from __future__ import annotations

import numpy as np

from ggq.quants.packing import join_planes

__all__ = ["words"]


def words(codes: np.ndarray, bits: int) -> np.ndarray:
    """Return rows of codes (rows, n), of 4 or 8 bits, as int32 (rows, ceil(n * bits / 32))."""
    per_word = 32 // bits
    codes = np.pad(codes, ((0, 0), (0, -codes.shape[1] % per_word)))
    packed = codes if bits == 8 else join_planes(np.ascontiguousarray(codes), 1, bits)
    return np.ascontiguousarray(packed).view("<i4")

"""Recording a vision tower: rows whose numbers a picture's size says, inputs at fixed addresses.

A plan is recorded for one size of picture. It knows no operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ggq.quants.kernels import abi
from ggq.runtime.backends.numba.backend import DECODE_TOKENS, NumbaOps
from ggq.runtime.backends.numba.plan import ONE, SEEN, Buffer, Recorder, State
from ggq.runtime.backends.numba.values import Value

__all__ = ["PictureOps", "padded_rows"]


def padded_rows(rows: Any) -> np.ndarray:
    """Return ``rows`` as float32, columns of a larger array that is laid out as buffers are."""
    rows = np.asarray(rows)
    whole = np.zeros((len(rows), abi.padded(rows.shape[1])), np.float32)
    whole[:, : rows.shape[1]] = rows
    return whole[:, : rows.shape[1]]


class PictureOps(NumbaOps):
    """Records the encoding of one picture of ``len(picture)`` patches.

    ``picture``: `padded_rows`, whose values may change between runs. The most rows of any value are
    those of the patches and ``more``.
    """

    def __init__(self, weights: Mapping[str, Any], picture: np.ndarray, more: int = 1):
        super().__init__(weights, Recorder(len(picture) + more, State()), None, None)
        self.picture = picture
        self.decoding = False
        self.kept: list[Any] = []
        self._slots: dict[int, int] = {}

    def slot(self, n: int) -> int:
        """Return the slot of the state that counts ``n`` rows."""
        if n not in self._slots:
            assert n <= self.recorder.max_tokens
            self._slots[n] = SEEN + 1 + len(self._slots)
            self.recorder.state.words[self._slots[n]] = n
        return self._slots[n]

    def count(self, slot: int) -> int:
        """Return how many rows a slot counts."""
        return int(self.recorder.state.words[slot])

    def keep(self, array: np.ndarray) -> np.ndarray:
        """Return ``array``, which lives as long as these operations."""
        self.kept.append(array)
        return array

    def held(self, rows: np.ndarray) -> Value:
        """Return a value of `padded_rows` that are there already."""
        buffer = Buffer(rows.strides[0], self.slot(len(rows)), self.keep(rows).ctypes.data)
        return self.value(rows.shape[1], buffer.slot, lambda value, form, residual: buffer)

    def matmul_variants(self, slot: int) -> list[tuple[str, int]]:
        return [("decode" if self.count(slot) <= DECODE_TOKENS else "prefill", ONE)]

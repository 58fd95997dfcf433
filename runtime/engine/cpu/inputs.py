"""What Python hands to a step: token ids, positions, which logits, cosines and sines.

Arrays at fixed addresses, filled before the step; kernels only read them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ggq.runtime.backends.numba.plan import (
    OUTPUTS,
    OUTPUTS_DECODE,
    OUTPUTS_PREFILL,
    PARTS,
    SEGMENTS,
    SPLITS,
    SPLITS_OF_ALL,
    TOKENS,
    State,
)
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.engine.backend import Part
from ggq.runtime.kernels.attend import chunks_of
from ggq.runtime.kernels.attend_new import MAX_SPLITS
from ggq.runtime.ops.rope import angles

__all__ = ["Inputs"]

_SEGMENT_TOKENS = 16  # an attention item's tokens: enough to reuse a page, few enough to share out


class Inputs:
    """The step's inputs for at most ``max_tokens`` tokens."""

    def __init__(
        self,
        max_tokens: int,
        state: State,
        decode_tokens: int,
        causal: bool = True,
        n_adapters: int = 0,
    ):
        self.max_tokens, self.state, self._decode_tokens = max_tokens, state, decode_tokens
        self._causal = causal
        self._ids = np.zeros(max_tokens, np.int64)
        self._types = np.zeros(max_tokens, np.int64)
        self._outputs = np.zeros(max_tokens, np.int64)
        self._positions = np.zeros(max_tokens, np.int64)
        self._segments = np.zeros((max_tokens, 5), np.int64)
        self._recent = np.zeros((max_tokens, 5), np.int64)
        self._parts = np.zeros((max_tokens, 3), np.int64)
        # The scale of each adapter, of each token and of each gathered row.
        self._scales = np.zeros((2, n_adapters, max_tokens), np.float32)
        self._ropes: dict[Any, tuple[np.ndarray, np.ndarray | None]] = {}
        self._ended: dict[int, np.ndarray] = {}  # key-value heads -> parts that ended

    @property
    def ids(self) -> int:
        """Address of the int64 token ids."""
        return self._ids.ctypes.data

    @property
    def types(self) -> int:
        """Address of the int64 numbers of the parts of a text that the tokens belong to."""
        return self._types.ctypes.data

    @property
    def positions(self) -> int:
        """Address of the int64 positions of the tokens in their sequences."""
        return self._positions.ctypes.data

    @property
    def outputs(self) -> int:
        """Address of the int64 indices of tokens whose logits are asked for."""
        return self._outputs.ctypes.data

    @property
    def segments(self) -> int:
        """Address of the attention segments (runtime/kernels/attend.py)."""
        return self._segments.ctypes.data

    @property
    def recent_segments(self) -> int:
        """Address of the segments with the page tables of windowed layers."""
        return self._recent.ctypes.data

    @property
    def parts(self) -> int:
        """Address of int64 (first token, tokens, address of the state) of each sequence."""
        return self._parts.ctypes.data

    def scales(self, adapter: int, slot: int) -> int:
        """Return the address of an adapter's float32 scales: of tokens, or of gathered rows."""
        return int(self._scales[int(slot != TOKENS), adapter].ctypes.data)

    def ended(self, n_kv: int) -> int:
        """Return the address of int64 counts of ended parts, (few tokens, n_kv), 0 at first."""
        counts = self._ended.setdefault(n_kv, np.zeros(self._decode_tokens * n_kv, np.int64))
        return counts.ctypes.data

    def rope_table(self, rope: Any, backend: Any) -> int:
        """Return the address of float32 [token][cos, sin][dims / 2] for a rotary embedding."""
        if rope not in self._ropes:
            factors = None
            if rope.factors is not None:
                factors = backend.weight(rope.factors).dequantized()
            shape = (self.max_tokens, 2, rope.dims // 2)
            self._ropes[rope] = (np.zeros(shape, np.float32), factors)
        return self._ropes[rope][0].ctypes.data

    def fill(self, parts: list[Part]) -> int:
        """Write the inputs of a step; return the number of logits rows it will give."""
        n_tokens = n_outputs = n_segments = 0
        positions = self._positions
        for number, part in enumerate(parts):
            n, start = len(part.ids), part.sequence.length
            self._parts[number] = n_tokens, n, part.sequence.state_address
            self._ids[n_tokens : n_tokens + n] = part.ids
            self._types[n_tokens : n_tokens + n] = part.kinds
            positions[n_tokens : n_tokens + n] = np.arange(start, start + n)
            if len(self._scales[0]):
                scales = np.array(part.sequence.mix, np.float32)
                self._scales[0, :, n_tokens : n_tokens + n] = scales[:, None]
            asked = np.flatnonzero(part.wanted)
            self._outputs[n_outputs : n_outputs + len(asked)] = asked + n_tokens
            n_outputs += len(asked)
            for first in range(0, n, _SEGMENT_TOKENS):
                count = min(_SEGMENT_TOKENS, n - first)
                segment = n_tokens + first, count, start + first
                end = 0 if self._causal else start + n
                self._segments[n_segments] = *segment, part.sequence.table_address, end
                self._recent[n_segments] = *segment, part.sequence.recent_address, end
                n_segments += 1
            n_tokens += n
        self._scales[1, :, :n_outputs] = self._scales[0][:, self._outputs[:n_outputs]]
        for number, scales in enumerate(self._scales[0]):
            self.state.words[self.state.switch(number)] = scales[:n_tokens].any()
        for rope, (table, factors) in self._ropes.items():
            table[:n_tokens, 0], table[:n_tokens, 1] = angles(rope, positions[:n_tokens], factors)
        words = self.state.words
        words[TOKENS], words[OUTPUTS], words[SEGMENTS] = n_tokens, n_outputs, n_segments
        words[PARTS] = len(parts)
        longest = max(part.sequence.length + len(part.ids) for part in parts)
        words[SPLITS] = min(MAX_SPLITS, chunks_of(-(-longest // PAGE)))
        words[SPLITS_OF_ALL] = words[SPLITS] * n_segments
        for counts in self._ended.values():  # a step that was broken off may have left some
            counts[:] = 0
        for slot, factor in self.state.multiples.items():
            words[slot] = n_tokens * factor
        words[OUTPUTS_DECODE] = int(n_outputs <= self._decode_tokens)
        words[OUTPUTS_PREFILL] = int(n_outputs > self._decode_tokens)
        return n_outputs

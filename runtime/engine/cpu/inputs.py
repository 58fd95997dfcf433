"""What Python hands to a step: token ids, positions, which logits, cosines and sines.

Arrays at fixed addresses, filled before the step; kernels only read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ggq.runtime.backends.numba.plan import (
    OUTPUTS,
    OUTPUTS_DECODE,
    OUTPUTS_PREFILL,
    PARTS,
    SEEN,
    SEGMENTS,
    SPLITS,
    SPLITS_OF_ALL,
    TOKENS,
    State,
)
from ggq.runtime.cache.layout import PAGE
from ggq.runtime.engine.backend import Part
from ggq.runtime.engine.cpu.picture_rows import PictureRows
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
        pictures: tuple[int, int] | None = None,
    ):
        """``pictures``: how many rows a picture's token has, and their width; None: none come."""
        self.max_tokens, self.state, self._decode_tokens = max_tokens, state, decode_tokens
        self._causal = causal
        self._ids = np.zeros(max_tokens, np.int64)
        self._types = np.zeros(max_tokens, np.int64)
        self._outputs = np.zeros(max_tokens, np.int64)
        self._positions = np.zeros(max_tokens, np.int64)
        # by whether pictures' tokens see each other, and by page table: all layers', windowed ones'
        self._segments = np.zeros((2, 2, max_tokens, 6), np.int64)
        self.pictures = PictureRows(max_tokens, *pictures) if pictures else None
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

    def segments(self, recent: bool, mutual: bool) -> int:
        """Return the address of the attention segments (runtime/kernels/attend.py).

        ``recent``: with the page tables of windowed layers; ``mutual``: of layers in which a
        picture's tokens see each other.
        """
        return int(self._segments[int(mutual), int(recent)].ctypes.data)

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
        positions, places = self._positions, _places(parts)
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
            for first, count, begin, end in _runs(part):
                segment = n_tokens + first, count, start + first
                ends = (0, -1) if self._causal else (start + n, -1)
                for recent, pages in enumerate(part.sequence.tables):
                    self._segments[0, recent, n_segments] = *segment, pages, *ends
                    ends_here = (end, begin) if end else ends
                    self._segments[1, recent, n_segments] = *segment, pages, *ends_here
                n_segments += 1
            n_tokens += n
        self._scales[1, :, :n_outputs] = self._scales[0][:, self._outputs[:n_outputs]]
        for number, scales in enumerate(self._scales[0]):
            self.state.words[self.state.switch(number)] = scales[:n_tokens].any()
        for rope, (table, factors) in self._ropes.items():
            table[:n_tokens, 0], table[:n_tokens, 1] = angles(rope, places, factors)
        words = self.state.words
        words[TOKENS], words[OUTPUTS], words[SEGMENTS] = n_tokens, n_outputs, n_segments
        words[PARTS] = len(parts)
        words[SEEN] = 0 if self.pictures is None else self.pictures.fill(parts)
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


def _runs(part: Part) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first token, tokens, begin, end) of a part's segments; the last are a picture's.

    They are positions, 0 and 0 in text. No segment has tokens of two pictures.
    """
    at = 0
    for glimpse in (*part.pictures, None):
        text = len(part.ids) if glimpse is None else glimpse.first
        yield from ((*run, 0, 0) for run in _pieces(at, text))
        if glimpse is not None:
            at = glimpse.first + len(glimpse)
            yield from ((*run, *glimpse.span) for run in _pieces(text, at))


def _pieces(first: int, end: int) -> Iterator[tuple[int, int]]:
    for at in range(first, end, _SEGMENT_TOKENS):
        yield at, min(_SEGMENT_TOKENS, end - at)


def _places(parts: list[Part]) -> np.ndarray:
    """Return the positions that rotations turn by: (n_tokens,), or (n_tokens, 3) with pictures."""
    found = [part.positions for part in parts]
    if all(places.ndim == 1 for places in found):
        return np.concatenate(found)
    return np.concatenate([p if p.ndim > 1 else np.repeat(p[:, None], 3, axis=1) for p in found])

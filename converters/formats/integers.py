"""Weights as integer codes with scales per group of columns: ``(code - zero) * scale``, or
``code * scale + bias``.

It unpacks bits, decodes rows, and makes blocks of any type that holds the same codes under
half-precision scales. Where the codes come from is told by the formats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from ggq.converters.formats.base import Decoded, Rows
from ggq.errors import FormatError, printable

__all__ = ["Coded", "Integers", "pick", "same_everywhere", "unpack"]

CHECKED_ROWS = 4096  # at a time, when all scales are looked at


def unpack(packed: np.ndarray, bits: int) -> np.ndarray:
    """Return the codes in rows of bytes, lowest bits first, uint8 (rows, 8 * bytes // bits)."""
    packed = np.ascontiguousarray(packed).view(np.uint8)
    if bits == 8:
        return packed
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        codes = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
        return codes.reshape(len(packed), -1)
    n = packed.shape[1] * 8 // bits
    stream = np.unpackbits(packed, axis=1, count=n * bits, bitorder="little")
    weights = np.left_shift(np.uint8(1), np.arange(bits, dtype=np.uint8))
    return stream.reshape(len(packed), n, bits) @ weights


def pick(words: np.ndarray, index: np.ndarray, bits: int) -> np.ndarray:
    """Return codes ``index`` of rows of 32-bit words that are one stream of bits, uint8."""
    words = words.view(np.uint32)
    word, shift = np.divmod(index * bits, 32)
    low = words[:, word].astype(np.uint64)
    after = words[:, np.minimum(word + 1, words.shape[1] - 1)].astype(np.uint64)
    codes = (low | after << np.uint64(32)) >> shift.astype(np.uint64)
    return (codes & np.uint64((1 << bits) - 1)).astype(np.uint8)


def same_everywhere(words: np.ndarray, bits: int) -> int | None:
    """Return the one code that fills rows of 32-bit words; None where there are several."""
    period = bits if 32 % bits else 1
    flat = words.reshape(-1)
    if flat.size % period or not (flat.reshape(-1, period) == flat[:period]).all():
        return None
    codes = unpack(flat[None, :period], bits)
    return int(codes[0, 0]) if (codes == codes[0, 0]).all() else None


@dataclass(frozen=True)
class Coded:
    """How to read a weight's codes and scales for any rows.

    ``codes``: uint8 (rows, columns) below ``1 << bits``; ``scales``: float32 (rows, groups);
    ``zeros``: one for all, or float32 (rows, groups). Each group is ``group`` columns, in order
    unless ``order`` gives the group of every column. ``half``: the scales are stored as F16.
    ``biases``: float32 (rows, groups) to add, where the zero is no code; ``zeros`` is 0 then.
    """

    bits: int
    group: int
    codes: Callable[[Rows], np.ndarray]
    scales: Callable[[Rows], np.ndarray]
    zeros: Callable[[Rows], np.ndarray] | int
    order: np.ndarray | None = None
    half: bool = False
    biases: Callable[[Rows], np.ndarray] | None = None


class Integers(Decoded):
    """A weight of integer codes; its blocks of another type hold the very same codes."""

    def __init__(self, name: str, shape: tuple[int, int], coded: Coded) -> None:
        super().__init__(name, shape)
        self.coded = coded

    def _zeros(self, rows: Rows) -> np.ndarray | int:
        zeros = self.coded.zeros
        return zeros if isinstance(zeros, int) else zeros(rows)

    def _minimums(self, rows: Rows) -> np.ndarray:
        """Return what code 0 is worth, float32 (rows, groups)."""
        c = self.coded
        return -(c.scales(rows) * self._zeros(rows)) if c.biases is None else c.biases(rows)

    def values(self, rows: Rows) -> np.ndarray:
        c, width = self.coded, self.shape[1]
        codes = c.codes(rows).astype(np.float32)
        scales, zeros = c.scales(rows), self._zeros(rows)
        if c.biases is not None:
            grouped = codes.reshape(len(codes), -1, c.group)
            grouped *= scales[..., None]
            grouped += c.biases(rows)[..., None]
            return codes
        if c.order is None and width % c.group == 0:
            grouped = codes.reshape(len(codes), -1, c.group)
            grouped -= np.float32(zeros) if isinstance(zeros, int) else zeros[..., None]
            grouped *= scales[..., None]
            return codes
        of = np.arange(width) // c.group if c.order is None else c.order
        codes -= np.float32(zeros) if isinstance(zeros, int) else zeros[:, of]
        codes *= scales[:, of]
        return codes

    def fits(self, type_name: str) -> bool:
        kind, c = _evenly_spaced(type_name), self.coded
        if kind is None or c.order is not None or self.shape[1] % kind.block:
            return False
        if c.group % kind.block and c.group < self.shape[1]:
            return False
        top, levels, zero = (1 << c.bits) - 1, kind.levels, kind.zero
        if zero is None or c.biases is not None:
            return zero is None and top < levels

        def holds(low: float, high: float) -> bool:
            return high <= zero and top - low < levels - zero

        if isinstance(c.zeros, int):
            return holds(c.zeros, c.zeros)
        zeros = (c.zeros(rows) for rows in self._chunks())
        return holds(0, top) or all(holds(z.min(), z.max()) for z in zeros)

    def _chunks(self) -> list[slice]:
        n = self.shape[0]
        return [slice(i, min(i + CHECKED_ROWS, n)) for i in range(0, n, CHECKED_ROWS)]

    @np.errstate(all="ignore")
    def rounds(self, type_name: str) -> bool:
        kind, c = _evenly_spaced(type_name), self.coded
        assert kind is not None, type_name
        if kind.zero is not None and c.half:
            return False
        for rows in self._chunks():
            scales = c.scales(rows)
            if not (c.half or _is_half(scales)):
                return True
            if kind.zero is None and not _is_half(self._minimums(rows)):
                return True
        return False

    @np.errstate(all="ignore")
    def blocks(self, type_name: str, rows: Rows) -> np.ndarray:
        from ggq import quants
        from ggq.quants.searched import SearchedType

        kind, c = _evenly_spaced(type_name), self.coded
        assert kind is not None, type_name
        codes, scales, zeros = c.codes(rows), c.scales(rows), self._zeros(rows)
        of = np.arange(0, self.shape[1], kind.block) // c.group
        params = {"d": scales}
        if kind.zero is None:
            params["m"] = self._minimums(rows)
        else:
            codes = _recoded(codes, kind.zero - zeros, of, kind.block)
        halves = {n: p.astype(np.float16)[:, of] for n, p in params.items()}
        if not all(np.isfinite(p).all() for p in halves.values()):
            raise FormatError(
                f"tensor {printable(self.name)} has scales too large for those of {type_name}"
            )
        searched = quants.get(type_name)
        assert isinstance(searched, SearchedType), type_name
        return searched.pack(halves, codes)


def _recoded(codes: np.ndarray, shift: int | np.ndarray, of: np.ndarray, block: int) -> np.ndarray:
    """Return the codes counted from where the type has its zero: all, or blocks by their group."""
    if isinstance(shift, int):
        return (codes.astype(np.int16) + shift).astype(np.uint8)
    moved = codes.reshape(len(codes), -1, block).astype(np.int16)
    moved += shift[:, of].astype(np.int16)[..., None]
    return moved.astype(np.uint8).reshape(codes.shape)


@dataclass(frozen=True)
class EvenlySpaced:
    """A type of evenly spaced values; ``zero``: the code of zero, None above a minimum."""

    block: int
    levels: int
    zero: int | None


@cache
def _evenly_spaced(type_name: str) -> EvenlySpaced | None:
    """Return what a type of one scale (and one minimum) per block can hold; None for others."""
    from ggq import quants
    from ggq.quants.searched import SearchedType

    kind = quants.get(type_name)
    if not isinstance(kind, SearchedType) or kind.group != kind.block_size:
        return None
    params, _ = kind.unpack(np.zeros((1, kind.block_bytes), np.uint8))
    if set(params) == {"d", "m"} and kind.combine is np.add:
        return EvenlySpaced(kind.block_size, kind.levels, None)
    if set(params) == {"d"} and kind.zero:
        return EvenlySpaced(kind.block_size, kind.levels, kind.zero)
    return None


def _is_half(x: np.ndarray) -> bool:
    """Tell whether half precision holds all values exactly."""
    return bool((x.astype(np.float16).astype(np.float32) == x).all())

"""Metadata of a GGUF file: where each value lies in the header's bytes, and its value on request.

Values are decoded on first use. Token texts stay bytes, since a token may be a part of a UTF-8
character. It does not know what any key means.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

from ggq.gguf import spec


class Entry(NamedTuple):
    """Where a value lies: ``start`` is its first byte, after any length or array header."""

    type: int
    item_type: int | None  # of an array
    start: int
    end: int
    n_items: int  # items of an array, else 1
    ends: array[int] | None  # of an array of strings: where each one ends


class StringArray(Sequence[bytes]):
    """Strings of an array as slices of the header: ``[i]`` is bytes, ``.text(i)`` is str."""

    def __init__(self, buffer: bytes, start: int, ends: array[int]) -> None:
        self._buffer, self._start, self._ends = buffer, start, ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        end = self._ends[index]  # raises IndexError
        index %= len(self._ends)
        start = self._ends[index - 1] if index else self._start
        return self._buffer[start + 8 : end]

    def __iter__(self) -> Iterator[bytes]:
        buffer, start = self._buffer, self._start
        for end in self._ends:
            yield buffer[start + 8 : end]
            start = end

    def text(self, index: int) -> str:
        """Return string ``index`` as text; bytes that are not UTF-8 become U+FFFD."""
        return self[index].decode("utf-8", "replace")

    def tolist(self) -> list[bytes]:
        """Return all strings as a list of bytes."""
        return list(self)

    def texts(self) -> list[str]:
        """Return all strings as text; bytes that are not UTF-8 become U+FFFD."""
        quick = self._texts_at_once()
        return quick or [item.decode("utf-8", "replace") for item in self]

    def _texts_at_once(self) -> list[str]:
        """Return all strings where they are UTF-8 without NUL, else []: ten times as fast.

        Of each length, 8 bytes little-endian, only the last byte stays: 0, which separates.
        """
        if not self._ends:
            return []
        data = np.frombuffer(self._buffer, np.uint8)[self._start : self._ends[-1]]
        starts = np.concatenate(([0], np.asarray(self._ends)[:-1] - self._start))
        keep = np.ones(len(data), bool)
        keep[starts[:, None] + np.arange(7)] = False
        try:
            texts = data[keep].tobytes().decode("utf-8").split("\0")[1:]
        except UnicodeDecodeError:
            return []
        return texts if len(texts) == len(self) else []

    def without_pair(self) -> int | None:
        """Return the first string that is not two pieces, parted by its first space but one byte.

        That space is looked for from the second byte on and must not be the last byte.
        """
        if not self._ends:
            return None
        data = np.frombuffer(self._buffer, np.uint8)[: self._ends[-1]]
        ends = np.asarray(self._ends)
        starts = np.concatenate(([self._start], ends[:-1])) + 8
        spaces = np.append(np.flatnonzero(data == ord(" ")), len(data))
        first = spaces[np.searchsorted(spaces, starts + 1)]
        wrong = np.flatnonzero(first >= ends - 1)
        return int(wrong[0]) if len(wrong) else None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StringArray):
            return NotImplemented
        return self.tolist() == other.tolist()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"StringArray({len(self)} strings)"


class Metadata(Mapping[str, Any]):
    """Keys in file order; scalars as Python values, arrays as numpy or StringArray."""

    def __init__(self, buffer: bytes, entries: dict[str, Entry]) -> None:
        self._buffer, self._entries = buffer, entries
        self._values: dict[str, object] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            self._values[key] = self._decode(self._entries[key])
        return self._values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, key: str) -> Entry:
        """Return where the value of ``key`` lies; raises KeyError."""
        return self._entries[key]

    def raw(self, key: str) -> bytes:
        """Return the bytes of a value's data as in the file, without length or array header."""
        entry = self._entries[key]
        return self._buffer[entry.start : entry.end]

    def _decode(self, entry: Entry) -> Any:
        if entry.type == spec.STR:
            return self._buffer[entry.start : entry.end].decode("utf-8", "replace")
        if entry.ends is not None:
            return StringArray(self._buffer, entry.start, entry.ends)
        if entry.type == spec.ARRAY:
            assert entry.item_type is not None
            dtype = np.dtype(spec.NUMPY_CODES[entry.item_type])
            values = np.frombuffer(self._buffer, dtype, entry.n_items, entry.start)
            # A copy: the bytes in the file need not be aligned, and kernels want aligned arrays.
            values = values.astype(
                np.bool_ if entry.item_type == spec.BOOL else dtype.newbyteorder("=")
            )
            values.flags.writeable = False
            return values
        value = struct.unpack_from("<" + spec.STRUCT_CODES[entry.type], self._buffer, entry.start)[
            0
        ]
        return bool(value) if entry.type == spec.BOOL else value

"""Bounded reading of little-endian fields from the front of a file.

Every length is compared with the bytes that are left before anything is allocated. It reads with
read(), never through a memory map, so a file that shrinks meanwhile gives an error and not a
signal. It does not know what the fields mean.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path
from typing import BinaryIO

from ggq.errors import FormatError, printable
from ggq.gguf import spec

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_CHUNK = 4 << 20


class Cursor:
    """Position in the first bytes of a file; grows its buffer on demand up to the file's size."""

    def __init__(self, file: BinaryIO, size: int, path: Path) -> None:
        self.file, self.size, self.path = file, size, path
        self.buffer = bytearray()
        self.pos = 0
        self.where = "header"  # what is being read, for error messages

    def error(self, text: str) -> FormatError:
        """Return the error that names the file and what was being read."""
        return FormatError(f"{printable(self.path)}: {self.where}: {text}")

    def _fill(self, end: int) -> None:
        if end > self.size:
            raise self.error(f"runs past the end of the file (byte {end} of {self.size})")
        wanted = min(max(end - len(self.buffer), _CHUNK), self.size - len(self.buffer))
        piece = self.file.read(wanted)
        self.buffer += piece
        if end > len(self.buffer):
            raise self.error(f"the file shrank while it was read (byte {len(self.buffer)})")

    def take(self, n_bytes: int) -> int:
        """Step over ``n_bytes`` and return where they start."""
        start, end = self.pos, self.pos + n_bytes
        if end > len(self.buffer):
            self._fill(end)
        self.pos = end
        return start

    def u32(self) -> int:
        """Read one u32."""
        start = self.take(4)
        return int(_U32.unpack_from(self.buffer, start)[0])

    def u64(self) -> int:
        """Read one u64."""
        start = self.take(8)
        return int(_U64.unpack_from(self.buffer, start)[0])

    def skip_string(self, limit: int = spec.MAX_STRING_BYTES) -> tuple[int, int]:
        """Step over a length-prefixed string and return its start and end."""
        length = self.u64()
        if length > limit:
            raise self.error(f"string of {length} bytes, the limit is {limit}")
        start = self.take(length)
        return start, start + length

    def name(self, limit: int) -> str:
        """Read a key or tensor name: UTF-8, not empty, no NUL, at most ``limit`` bytes."""
        start, end = self.skip_string(limit)
        raw = bytes(self.buffer[start:end])
        if not raw:
            raise self.error("empty name")
        if 0 in raw:
            raise self.error(f"name {printable(raw)!r} holds a NUL byte")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(f"name {printable(raw)!r} is not UTF-8") from None

    def skip_strings(self, count: int) -> array[int]:
        """Step over ``count`` length-prefixed strings and return where each ends (int64)."""
        ends = array("q")
        append, unpack, buffer, pos = ends.append, _U64.unpack_from, self.buffer, self.pos
        while len(ends) < count:
            try:
                # No test inside the loop: 0.1 us per string. A length that leads outside makes the
                # next unpack_from (or append) fail, and _fill then tells the end of the buffer
                # from the end of the file.
                for _ in range(count - len(ends)):
                    pos += 8 + unpack(buffer, pos)[0]
                    append(pos)
            except (struct.error, OverflowError, IndexError):
                self._fill(pos + 8)
        if pos > len(buffer):
            self._fill(pos)
        self.pos = pos
        return ends

"""Parses the header of one GGUF file: version, metadata entries, checked tensor table.

Refuses everything that would make a later reader touch bytes outside the file. It does not know
what keys mean (but for general.alignment), does not touch tensor data and does not know of splits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ggq.errors import GIT_LFS, printable
from ggq.gguf import spec
from ggq.gguf.cursor import Cursor
from ggq.gguf.metadata import Entry, Metadata


class TensorInfo(NamedTuple):
    """One tensor: shape in numpy order (row length last), absolute offset in its shard."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    nbytes: int
    offset: int  # bytes from the start of the shard's file
    shard: int = 0

    @property
    def type_name(self) -> str:
        """Name of the tensor's type, such as Q4_K."""
        return spec.type_name(self.type_id)

    @property
    def n_elements(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row (the last dimension)."""
        return spec.row_bytes(self.type_id, self.shape[-1])

    @property
    def n_rows(self) -> int:
        """Number of rows, all leading dimensions together."""
        return math.prod(self.shape[:-1])


class Header(NamedTuple):
    """What one file declares before its data."""

    version: int
    metadata: Metadata
    tensors: list[TensorInfo]
    alignment: int
    end: int  # of what is declared: zeros follow up to the data
    data_start: int


def parse_header(cursor: Cursor, shard: int = 0) -> Header:
    """Parse and check a header; raises FormatError naming the key or tensor at fault."""
    version = _read_version(cursor)
    n_tensors, n_keys = cursor.u64(), cursor.u64()
    if n_tensors > spec.MAX_TENSORS or n_tensors * 33 > cursor.size:
        raise cursor.error(f"{n_tensors} tensors cannot be in a file of {cursor.size} bytes")
    if n_keys > spec.MAX_KEYS or n_keys * 14 > cursor.size:
        raise cursor.error(f"{n_keys} keys cannot be in a file of {cursor.size} bytes")
    entries = _read_entries(cursor, n_keys)
    alignment = _alignment(cursor, entries)
    tensors = _read_tensors(cursor, n_tensors, alignment, shard)
    return Header(
        version,
        Metadata(bytes(memoryview(cursor.buffer)[: cursor.pos]), entries),
        tensors,
        alignment,
        cursor.pos,
        spec.pad(cursor.pos, alignment),
    )


def _read_version(cursor: Cursor) -> int:
    start = cursor.take(4)
    magic = bytes(cursor.buffer[start : start + 4])
    if bytes(cursor.buffer[start : start + len(GIT_LFS)]) == GIT_LFS:
        raise cursor.error("is a git-lfs pointer, not the file: run git lfs pull")
    if magic != spec.MAGIC and bytes(cursor.buffer[start + 8 : start + 10]) == b'{"':
        raise cursor.error("safetensors, not a GGUF file: convert its folder (ggq convert)")
    if magic != spec.MAGIC:
        raise cursor.error(f"not a GGUF file (it starts with {printable(magic)!r})")
    version = cursor.u32()
    if version and version & 0xFFFF == 0:
        raise cursor.error("big-endian GGUF file; ggq reads little-endian files only")
    if version not in spec.VERSIONS_READ:
        known = " and ".join(map(str, spec.VERSIONS_READ))
        raise cursor.error(f"GGUF version {version}, ggq reads versions {known}")
    return version


def _read_entries(cursor: Cursor, n_keys: int) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    strings_left = spec.MAX_STRINGS
    for i in range(n_keys):
        cursor.where = f"key {i}"
        key = cursor.name(spec.MAX_KEY_BYTES)
        cursor.where = f"key '{printable(key)}'"
        if key in entries:
            raise cursor.error("appears twice")
        entry = _read_entry(cursor, strings_left)
        if entry.ends is not None:
            strings_left -= entry.n_items
        entries[key] = entry
    return entries


def _read_entry(cursor: Cursor, strings_left: int) -> Entry:
    type_id = cursor.u32()
    if type_id == spec.STR:
        start, end = cursor.skip_string()
        return Entry(type_id, None, start, end, 1, None)
    if type_id == spec.ARRAY:
        return _read_array(cursor, strings_left)
    if type_id not in spec.VALUE_BYTES:
        raise cursor.error(f"unknown value type {type_id}")
    start = cursor.take(spec.VALUE_BYTES[type_id])
    if type_id == spec.BOOL:
        _check_bools(cursor, start)
    return Entry(type_id, None, start, cursor.pos, 1, None)


def _read_array(cursor: Cursor, strings_left: int) -> Entry:
    item_type, count = cursor.u32(), cursor.u64()
    if item_type == spec.ARRAY:
        raise cursor.error("is an array of arrays, which ggq does not read")
    if item_type != spec.STR and item_type not in spec.VALUE_BYTES:
        raise cursor.error(f"unknown value type {item_type} in an array")
    left = cursor.size - cursor.pos
    item_bytes = spec.VALUE_BYTES.get(item_type, 8)  # a string is at least its length
    if count > spec.MAX_ARRAY_ITEMS or count * item_bytes > left:
        raise cursor.error(
            f"array of {count} items runs past the end of the file ({left} bytes left)"
        )
    if item_type == spec.STR:
        if count > strings_left:
            raise cursor.error(f"more than {spec.MAX_STRINGS} strings in the file's arrays")
        start = cursor.pos
        ends = cursor.skip_strings(count)
        return Entry(spec.ARRAY, item_type, start, cursor.pos, count, ends)
    start = cursor.take(count * item_bytes)
    if item_type == spec.BOOL:
        _check_bools(cursor, start)
    return Entry(spec.ARRAY, item_type, start, cursor.pos, count, None)


def _check_bools(cursor: Cursor, start: int) -> None:
    raw = bytes(memoryview(cursor.buffer)[start : cursor.pos])
    if raw.strip(b"\0\1") and raw.translate(None, b"\0\1"):
        raise cursor.error("a bool is neither 0 nor 1")


def _alignment(cursor: Cursor, entries: dict[str, Entry]) -> int:
    entry = entries.get(spec.KEY_ALIGNMENT)
    if entry is None:
        return spec.DEFAULT_ALIGNMENT
    cursor.where = f"key '{spec.KEY_ALIGNMENT}'"
    if entry.type != spec.U32:
        raise cursor.error(f"must be u32, it is {spec.VALUE_NAMES[entry.type]}")
    alignment = int.from_bytes(cursor.buffer[entry.start : entry.end], "little")
    if not spec.valid_alignment(alignment):
        limits = f"{spec.MIN_ALIGNMENT} to {spec.MAX_ALIGNMENT}"
        raise cursor.error(f"{alignment} is not a power of two from {limits}")
    return alignment


def _read_tensors(cursor: Cursor, n_tensors: int, alignment: int, shard: int) -> list[TensorInfo]:
    """Read the tensor table; offsets must be the running padded sum, so nothing can overlap."""
    tensors: list[TensorInfo] = []
    seen: set[str] = set()
    expected = 0
    for i in range(n_tensors):
        cursor.where = f"tensor {i}"
        name = cursor.name(spec.MAX_NAME_BYTES)
        cursor.where = f"tensor '{printable(name)}'"
        if name in seen:
            raise cursor.error("appears twice")
        seen.add(name)
        tensor, offset = _read_tensor(cursor, name, shard)
        if offset != expected:
            raise cursor.error(f"its data offset is {offset}, expected {expected}")
        expected = spec.pad(expected + tensor.nbytes, alignment)
        tensors.append(tensor._replace(offset=offset))
    data_start = spec.pad(cursor.pos, alignment)
    for i, tensor in enumerate(tensors):
        tensors[i] = tensor._replace(offset=data_start + tensor.offset)
        end = data_start + tensor.offset + tensor.nbytes
        if end > cursor.size:
            cursor.where = f"tensor '{printable(tensor.name)}'"
            raise cursor.error(
                f"its data ends at byte {end}, the file has {cursor.size} (truncated?)"
            )
    return tensors


def _read_tensor(cursor: Cursor, name: str, shard: int) -> tuple[TensorInfo, int]:
    n_dims = cursor.u32()
    if not 1 <= n_dims <= spec.MAX_DIMS:
        raise cursor.error(f"{n_dims} dimensions, must be 1 to {spec.MAX_DIMS}")
    dims = [cursor.u64() for _ in range(n_dims)]
    type_id, offset = cursor.u32(), cursor.u64()
    if 0 in dims:
        raise cursor.error(f"shape {dims} has a dimension of 0")
    if type_id in spec.REMOVED_TYPES:
        raise cursor.error(f"type {type_id} was removed from GGUF; convert the model again")
    info = spec.TYPES.get(type_id)
    if info is None:
        raise cursor.error(f"unknown tensor type {type_id}")
    if dims[0] % info.block_size:
        raise cursor.error(
            f"rows of {dims[0]} are not whole {info.name} blocks of {info.block_size}"
        )
    nbytes = math.prod(dims) // info.block_size * info.block_bytes  # Python ints: no wrap
    if nbytes > cursor.size:
        raise cursor.error(f"shape {dims} needs {nbytes} bytes, the file has {cursor.size}")
    return TensorInfo(name, tuple(reversed(dims)), type_id, nbytes, 0, shard), offset

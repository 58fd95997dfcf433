"""Metadata values and headers as bytes of GGUF v3.

Infers value types from Python and numpy types where none is asked for. It does not know which keys
a model needs and touches no file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ggq.errors import FormatError, printable
from ggq.gguf import spec
from ggq.gguf.metadata import Metadata, StringArray

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_NUMPY_TYPES = {
    np.dtype(code).newbyteorder("="): type_id
    for type_id, code in spec.NUMPY_CODES.items()
    if type_id != spec.BOOL
} | {np.dtype(np.bool_): spec.BOOL, np.dtype(np.float16): spec.F32}


class TensorSpec(NamedTuple):
    """What the writer knows of a tensor before its data comes: shape in numpy order."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    nbytes: int


def declare_tensor(name: str, shape: Iterable[int], type_id: int) -> TensorSpec:
    """Check a tensor's name, shape and type; raises FormatError naming the tensor."""
    dims = tuple(int(d) for d in shape)
    raw, where = name.encode("utf-8"), f"tensor '{printable(name)}'"
    if not 0 < len(raw) <= spec.MAX_NAME_BYTES or 0 in raw:
        raise FormatError(f"{where}: GGUF names have 1 to {spec.MAX_NAME_BYTES} bytes and no NUL")
    if not 1 <= len(dims) <= spec.MAX_DIMS or min(dims) < 1:
        raise FormatError(f"{where}: shape {dims} does not fit GGUF")
    info = spec.TYPES.get(type_id)
    if info is None:
        raise FormatError(f"{where}: unknown tensor type {type_id}")
    if dims[-1] % info.block_size:
        raise FormatError(f"{where}: rows of {dims[-1]} are not whole {info.name} blocks")
    n_rows = 1
    for dim in dims[:-1]:
        n_rows *= dim
    return TensorSpec(name, dims, type_id, n_rows * spec.row_bytes(type_id, dims[-1]))


def encode_value(key: str, value: Any, type_id: int | None = None) -> bytes:
    """Return the type and data of a value; for a sequence ``type_id`` is the type of its items.

    Raises FormatError naming the key where the value does not fit the type.
    """
    if isinstance(value, tuple) and len(value) == 2 and _is_array(value[0]):
        value, type_id = value  # (values, item type)
    try:
        if _is_array(value):
            return _encode_array(value, None if type_id == spec.ARRAY else type_id)
        type_id = _scalar_type(value) if type_id is None else type_id
        return _U32.pack(type_id) + _encode_scalar(value, type_id)
    except (struct.error, OverflowError, TypeError, ValueError, AttributeError, KeyError):
        name = "unknown type"
        if type_id is not None and 0 <= type_id < len(spec.VALUE_NAMES):
            name = spec.VALUE_NAMES[type_id]
        shown = printable(repr(value), 40)
        raise FormatError(f"key '{printable(key)}': {shown} cannot be stored as {name}") from None


def _is_array(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray | StringArray | range)


def _scalar_type(value: Any) -> int:
    if isinstance(value, bool | np.bool_):
        return spec.BOOL
    if isinstance(value, str | bytes):
        return spec.STR
    if isinstance(value, int | np.integer):
        return _int_type(int(value), int(value), spec.U32)
    if isinstance(value, float | np.floating):
        return spec.F32
    raise TypeError(type(value).__name__)


def _int_type(low: int, high: int, preferred: int) -> int:
    """Return the first of ``preferred``, U32, I32, U64, I64 that holds both ends."""
    for type_id in (preferred, spec.U32, spec.I32, spec.U64, spec.I64):
        limits = np.iinfo(spec.NUMPY_CODES[type_id])
        if limits.min <= low and high <= limits.max:
            return type_id
    raise OverflowError


def _encode_scalar(value: Any, type_id: int) -> bytes:
    if type_id == spec.STR:
        raw = value.encode("utf-8") if isinstance(value, str) else bytes(memoryview(value))
        return _U64.pack(len(raw)) + raw
    if type_id == spec.BOOL:
        if value not in (0, 1):
            raise ValueError
        value = int(value)
    elif type_id in spec.FLOAT_TYPES:
        value = float(value)
    elif int(value) != value:
        raise ValueError
    else:
        value = int(value)
    return struct.pack("<" + spec.STRUCT_CODES[type_id], value)


def _encode_array(values: Any, item_type: int | None) -> bytes:
    if item_type is None:
        item_type = _item_type(values)
    head = struct.pack("<IIQ", spec.ARRAY, item_type, len(values))
    if item_type == spec.STR:
        raws = [v.encode("utf-8") if isinstance(v, str) else bytes(memoryview(v)) for v in values]
        return head + b"".join([part for raw in raws for part in (_U64.pack(len(raw)), raw)])
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError
    if len(array) and item_type in spec.INT_TYPES:
        limits = np.iinfo(spec.NUMPY_CODES[item_type])
        if array.dtype.kind not in "iub" or array.min() < limits.min or array.max() > limits.max:
            raise OverflowError
    return head + array.astype(spec.NUMPY_CODES[item_type]).tobytes()


def _item_type(values: Any) -> int:
    if isinstance(values, StringArray):
        return spec.STR
    if isinstance(values, np.ndarray):
        return int(_NUMPY_TYPES[values.dtype.newbyteorder("=")])
    if all(isinstance(item, str | bytes) for item in values):
        return spec.STR
    if all(isinstance(item, bool | np.bool_) for item in values):
        return spec.BOOL
    if all(isinstance(item, int | np.integer) for item in values):
        return _int_type(min(values), max(values), spec.I32)
    return spec.F32


def copy_value(metadata: Metadata, key: str) -> bytes:
    """Return a value of an open file byte for byte as it would be written again."""
    entry, raw = metadata.entry(key), metadata.raw(key)
    if entry.type == spec.STR:
        return struct.pack("<IQ", spec.STR, len(raw)) + raw
    if entry.type == spec.ARRAY:
        return struct.pack("<IIQ", spec.ARRAY, entry.item_type, entry.n_items) + raw
    return _U32.pack(entry.type) + raw


def key_bytes(key: str, encoded: bytes) -> int:
    """Return the bytes that a key and its encoded value take in a header."""
    return 8 + len(key.encode("utf-8")) + len(encoded)


def info_bytes(tensor: TensorSpec) -> int:
    """Return the bytes of a tensor's row in the tensor table."""
    return 8 + len(tensor.name.encode("utf-8")) + 4 + 8 * len(tensor.shape) + 12


def encode_header(keys: dict[str, bytes], tensors: Sequence[TensorSpec]) -> bytes:
    """Return the header up to the padded start of the data, with the offset of every tensor."""
    parts = [spec.MAGIC, struct.pack("<IQQ", spec.VERSION_WRITTEN, len(tensors), len(keys))]
    for key, encoded in keys.items():
        parts += (_encode_scalar(key, spec.STR), encoded)
    offset = 0
    for tensor in tensors:
        dims = tuple(reversed(tensor.shape))
        parts.append(_encode_scalar(tensor.name, spec.STR))
        parts.append(struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.type_id, offset))
        offset = spec.pad(offset + tensor.nbytes, spec.DEFAULT_ALIGNMENT)
    header = b"".join(parts)
    return header.ljust(spec.pad(len(header), spec.DEFAULT_ALIGNMENT), b"\0")

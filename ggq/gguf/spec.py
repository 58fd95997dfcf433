"""GGUF as constants: value types, tensor types and their block sizes, limits and alignment.

Knows the numbers of the format only: no file, no parsing. Block types that ggq decodes are declared
in ggq.quants. Sources: ggml's docs/gguf.md, the block structs of ggml-common.h, and the limits
in docs of other readers.
"""

from __future__ import annotations

from typing import NamedTuple

from ggq import quants
from ggq.quants.file_types import FILE_TYPES as MADE

MAGIC = b"GGUF"
VERSIONS_READ = (2, 3)
VERSION_WRITTEN = 3

# Value types of metadata.
U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARRAY, U64, I64, F64 = range(13)

VALUE_NAMES = (
    "u8",
    "i8",
    "u16",
    "i16",
    "u32",
    "i32",
    "f32",
    "bool",
    "str",
    "array",
    "u64",
    "i64",
    "f64",
)
# struct codes (little-endian) and numpy types of everything of fixed size.
STRUCT_CODES = {
    U8: "B",
    I8: "b",
    U16: "H",
    I16: "h",
    U32: "I",
    I32: "i",
    F32: "f",
    BOOL: "B",
    U64: "Q",
    I64: "q",
    F64: "d",
}
NUMPY_CODES = {
    U8: "<u1",
    I8: "<i1",
    U16: "<u2",
    I16: "<i2",
    U32: "<u4",
    I32: "<i4",
    F32: "<f4",
    BOOL: "<u1",
    U64: "<u8",
    I64: "<i8",
    F64: "<f8",
}
VALUE_BYTES = {
    U8: 1,
    I8: 1,
    U16: 2,
    I16: 2,
    U32: 4,
    I32: 4,
    F32: 4,
    BOOL: 1,
    U64: 8,
    I64: 8,
    F64: 8,
}
FLOAT_TYPES = frozenset({F32, F64})
INT_TYPES = frozenset({U8, I8, U16, I16, U32, I32, U64, I64})

# Limits. The counts keep a hostile file from turning a few bytes into many Python objects; real
# files have about 50 keys, a thousand tensors and under a million strings.
MAX_KEYS = 65_536
MAX_TENSORS = 65_536
MAX_KEY_BYTES = 65_535
MAX_NAME_BYTES = 63  # ggml's GGML_MAX_NAME counts the closing NUL
MAX_STRING_BYTES = 1 << 30
MAX_ARRAY_ITEMS = 1 << 30
MAX_STRINGS = 4 << 20  # strings in all arrays of a file together
MAX_DIMS = 4
MAX_SHARDS = 1024
DEFAULT_ALIGNMENT = 32
MIN_ALIGNMENT, MAX_ALIGNMENT = 8, 65_536

KEY_ARCHITECTURE = "general.architecture"
KEY_ALIGNMENT = "general.alignment"
KEY_SPLIT_NO = "split.no"
KEY_SPLIT_COUNT = "split.count"
KEY_SPLIT_TENSORS = "split.tensors.count"


class TypeInfo(NamedTuple):
    """Name of a tensor type, elements per block and bytes per block."""

    name: str
    block_size: int
    block_bytes: int


# Types of tensors in files that ggq does not decode.
_OTHERS = {
    9: TypeInfo("Q8_1", 32, 36),
    15: TypeInfo("Q8_K", 256, 292),
    24: TypeInfo("I8", 1, 1),
    25: TypeInfo("I16", 1, 2),
    26: TypeInfo("I32", 1, 4),
    27: TypeInfo("I64", 1, 8),
    28: TypeInfo("F64", 1, 8),
}
_DECODED = {t.ggml_id: TypeInfo(t.name, t.block_size, t.block_bytes) for t in quants.all()}
TYPES: dict[int, TypeInfo] = dict(sorted((_OTHERS | _DECODED).items()))
REMOVED_TYPES = frozenset({4, 5, 31, 32, 33, 36, 37, 38})
TYPE_IDS = {info.name: type_id for type_id, info in TYPES.items()}

KEY_FILE_TYPE = "general.file_type"
# What a file is made as, llama.cpp's llama_ftype: number -> name. The last are read, not made.
FILE_TYPES = {t.number: t.name for t in MADE.values()} | {39: "NVFP4", 40: "Q1_0", 41: "Q2_0"}
FILE_TYPE_IDS = {name: number for number, name in FILE_TYPES.items()}


def pad(size: int, alignment: int) -> int:
    """Return ``size`` rounded up to a multiple of ``alignment``."""
    return -(-size // alignment) * alignment


def valid_alignment(alignment: int) -> bool:
    """Tell whether ``alignment`` is a power of two that ggq accepts."""
    in_range = MIN_ALIGNMENT <= alignment <= MAX_ALIGNMENT
    return in_range and alignment & (alignment - 1) == 0


def row_bytes(type_id: int, n_cols: int) -> int:
    """Return the bytes of one row of ``n_cols`` elements, a multiple of the block size."""
    info = TYPES[type_id]
    return n_cols // info.block_size * info.block_bytes


def type_name(type_id: int) -> str:
    """Return the name of a tensor type, or its number where it has none."""
    info = TYPES.get(type_id)
    return info.name if info else f"type {type_id}"

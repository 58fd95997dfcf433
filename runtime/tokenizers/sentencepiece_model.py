"""A SentencePiece model written as protobuf bytes: the Python package brings no message classes.

Field numbers are those of sentencepiece_model.proto. It does not know GGUF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

UNIGRAM, BPE = 1, 2  # TrainerSpec.ModelType
VARINT, BYTES, FIXED32 = 0, 2, 5


def varint(value: int) -> bytes:
    """Return the protobuf form of a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: bytes | int) -> bytes:
    """Return one field: a length-delimited value or a number."""
    if isinstance(value, int):
        return varint(number << 3 | VARINT) + varint(value)
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def build_model(
    pieces: Iterable[tuple[str, float, int]],
    model_type: int = BPE,
    *,
    byte_fallback: bool,
    unk_id: int,
    add_dummy_prefix: bool = False,
    remove_extra_whitespaces: bool = False,
    charsmap: bytes = b"",
) -> bytes:
    """Return a serialized ModelProto of (text, score, type) pieces.

    Types are those of SentencePiece, which GGUF shares; pieces must be distinct and not empty,
    with exactly one of type 2 (unknown).
    """
    pack = struct.Struct("<f").pack
    out = []
    for text, score, kind in pieces:
        data = text.encode()
        size = len(data)
        if size < 119:  # lengths of one byte
            parts = (size + 9, size, data, pack(score), kind)
            out.append(b"\x0a%c\x0a%c%b\x15%b\x18%c" % parts)
        else:
            body = b"\x0a%b%b\x15%b\x18%c" % (varint(size), data, pack(score), kind)
            out.append(field(1, body))
    trainer = field(3, model_type) + field(35, int(byte_fallback)) + field(40, unk_id)
    normalizer = field(1, b"identity") + (field(2, charsmap) if charsmap else b"")
    normalizer += field(3, int(add_dummy_prefix)) + field(4, int(remove_extra_whitespaces))
    normalizer += field(5, 1)  # escape_whitespaces
    return b"".join(out) + field(2, trainer) + field(3, normalizer)


def fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield (number, value) of a protobuf message; stops at what is malformed."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while at < len(data) and shift < 64:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise ValueError("a number runs over the end")

    try:
        while at < len(data):
            tag = number()
            kind = tag & 7
            if kind == VARINT:
                yield tag >> 3, number()
                continue
            size = number() if kind == BYTES else {1: 8, FIXED32: 4}[kind]
            yield tag >> 3, data[at : at + size]
            at += size
    except (ValueError, KeyError):
        return


def read_normalizer(model: bytes) -> dict[str, bool]:
    """Return add_dummy_prefix and remove_extra_whitespaces of a serialized ModelProto."""
    flags = {3: True, 4: True}  # the defaults of NormalizerSpec
    for number, value in fields(model):
        if number == 3 and isinstance(value, bytes):
            flags |= {n: bool(v) for n, v in fields(value) if n in flags}
    return {"add_dummy_prefix": flags[3], "remove_extra_whitespaces": flags[4]}

"""Checkpoints of torchao in safetensors: tensor subclasses taken apart, their kinds in the headers.

Layout: torchao.prototype.safetensors and its tensor classes. ``module._weight_qdata`` and
``module._weight_scale`` stand for ``module.weight``; the files' metadata say which class it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from ggq.converters.formats.base import Decoded, Pieces, Rows, expect_shape, whole
from ggq.converters.formats.floats import FP8, SCALES, Fours, eights
from ggq.converters.formats.integers import Coded, Integers, unpack
from ggq.converters.safetensors import FLOATS
from ggq.errors import FormatError, ModelError, printable

__all__ = ["FORMAT"]

DATA = "._weight_"
MAX_TEXT = 100_000
# Pieces that say how activations are rounded at run time, which no file of ours does.
OF_ACTIVATIONS = ("act_quant_scale", "act_quant_zero_point", "act_per_tensor_scale")


class TorchAO:
    """Modules of ``_weight_qdata``, ``_weight_scale`` and, by their class, zeros and more."""

    methods = ("torchao",)
    beside = None

    def decode(self, pieces: Pieces, settings: Mapping[str, Any]) -> None:
        for module in list(pieces.modules(f"{DATA}qdata")):
            name = f"{module}.weight"
            kind, said = _told(pieces.metadata, name)
            if kind not in KINDS:
                what = f"tensor {printable(name)} is a {printable(kind)} of torchao"
                raise ModelError(f"{what}, which is not read, only {', '.join(KINDS)}")
            for piece in OF_ACTIVATIONS:
                pieces.find(f"{module}{DATA}{piece}")
            if f"{module}{DATA}act_pre_scale" in pieces.tensors:
                raise ModelError(f"tensor {printable(name)} scales its inputs, which is not read")
            pieces.put(KINDS[kind](pieces, module, said))


def _told(metadata: Mapping[str, str], name: str) -> tuple[str, Mapping[str, Any]]:
    """Return (class, attributes) of a weight as the files' metadata has them; FormatError."""
    text = metadata.get(name, "")
    try:
        found = json.loads(text) if len(text) <= MAX_TEXT else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("_data"), dict):
        raise FormatError(f"tensor {printable(name)}: the files' metadata says no class of torchao")
    return str(found.get("_type")), found["_data"]


def _group(said: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> int:
    """Return the columns under one scale of a matrix of ``shape``; FormatError."""
    if len(shape) != 2 or not all(shape):
        raise FormatError(f"tensor {printable(name)} has shape {shape}, no matrix")
    block: Any = said.get("block_size")
    listed = isinstance(block, list) and len(block) == 2 and all(type(n) is int for n in block)
    if not listed or block[0] != 1 or not 0 < block[1] <= shape[1] or shape[1] % block[1]:
        what = f"tensor {printable(name)} of shape {shape} has blocks of {printable(repr(block))}"
        raise FormatError(f"{what}, not groups of its columns")
    return int(block[1])


def _bytes(pieces: Pieces, module: str, said: Mapping[str, Any]) -> Integers:
    """Int8Tensor, IntxUnpackedToInt8Tensor: a signed byte for each code, whole zeros."""
    name = f"{module}.weight"
    stored = pieces.take(f"{module}{DATA}qdata", "I8", of=name)
    scales = pieces.take(f"{module}{DATA}scale", *FLOATS, of=name)
    zeros = pieces.find(f"{module}{DATA}zero_point", "I8", "I32", *FLOATS)
    group = _group(said, name, stored.shape)
    shape = stored.shape[0], stored.shape[1] // group
    target = said.get("target_dtype", {"_data": "int8"})
    kind = str(target.get("_data")) if isinstance(target, Mapping) else ""
    if kind not in MIDDLES:
        raise FormatError(f"tensor {printable(name)}: codes of {printable(kind)}")
    for piece in (scales, zeros):
        if piece is not None:
            expect_shape(piece, shape)
    middle = MIDDLES[kind]
    low = stored.stored()
    if low.min() < -middle or low.max() >= middle:
        raise FormatError(f"tensor {printable(name)} holds codes that {kind} has not")

    def codes(rows: Rows) -> np.ndarray:
        return (stored.stored()[rows].astype(np.int16) + middle).astype(np.uint8)

    shift = _zeros(zeros, middle)
    bits = middle.bit_length()
    half = scales.dtype == "F16"
    return Integers(name, stored.shape, Coded(bits, group, codes, scales.read, shift, half=half))


MIDDLES = {f"int{bits}": 1 << bits - 1 for bits in range(2, 9)}  # the code of zero without zeros


def _zeros(stored: Any, middle: int) -> Callable[[Rows], np.ndarray] | int:
    """Return the code of zero for all, or what reads those of rows."""
    if stored is None or not np.count_nonzero(stored.stored()):
        return middle
    if stored.dtype in FLOATS:
        return lambda rows: np.asarray(stored.read(rows) + np.float32(middle))
    return lambda rows: np.asarray(stored.stored()[rows].astype(np.float32) + np.float32(middle))


def _nibbles(pieces: Pieces, module: str, said: Mapping[str, Any]) -> Integers:
    """Int4Tensor: pairs of signed codes, scales and what code 0 is worth in rows of groups."""
    name = f"{module}.weight"
    stored = pieces.take(f"{module}{DATA}qdata", "I8", "U8", of=name)
    scales = pieces.take(f"{module}{DATA}scale", *FLOATS, of=name)
    zeros = pieces.take(f"{module}{DATA}zero_point", scales.dtype, of=name)
    shape = (*stored.shape[:-1], 2 * stored.shape[-1]) if stored.shape else ()
    group = _group(said, name, shape)
    for piece in (scales, zeros):
        expect_shape(piece, (shape[1] // group, shape[0]))

    def codes(rows: Rows) -> np.ndarray:
        return unpack(stored.stored()[rows].view(np.uint8), 4) ^ np.uint8(8)

    def read(rows: Rows) -> np.ndarray:
        return np.ascontiguousarray(scales.read((slice(None), rows)).T)

    def biases(rows: Rows) -> np.ndarray:
        return np.ascontiguousarray(zeros.read((slice(None), rows)).T) - 8 * read(rows)

    half = scales.dtype == "F16"
    if not np.count_nonzero(zeros.stored()):
        return Integers(name, shape, Coded(4, group, codes, read, 8, half=half))
    return Integers(name, shape, Coded(4, group, codes, read, 0, half=half, biases=biases))


def _eights(pieces: Pieces, module: str, said: Mapping[str, Any]) -> Decoded:
    """Float8Tensor: E4M3 or E5M2 and float32 scales of rows, groups, blocks or for all."""
    name = f"{module}.weight"
    stored = pieces.take(f"{module}{DATA}qdata", *FP8, of=name)
    scales = pieces.take(f"{module}{DATA}scale", *SCALES, of=name)
    block: Any = said.get("block_size")
    sizes = isinstance(block, list) and len(block) == 2 and all(type(n) is int for n in block)
    if not sizes or len(stored.shape) != 2 or min(block) < 1:
        what = f"tensor {printable(name)} of shape {stored.shape} has blocks of"
        raise FormatError(f"{what} {printable(repr(block))}")
    return eights(name, stored, scales, (block[0], block[1]))


def _powers(pieces: Pieces, module: str, said: Mapping[str, Any]) -> Decoded:
    """MXTensor: E2M1 in pairs, or E4M3, under a power of two per 32."""
    name = f"{module}.weight"
    if said.get("is_swizzled_scales"):
        raise ModelError(f"tensor {printable(name)} has its scales in a GPU's order: not read")
    stored = pieces.take(f"{module}{DATA}qdata", "U8", *FP8, of=name)
    scales = pieces.take(f"{module}{DATA}scale", "F8_E8M0", "U8", of=name)
    if stored.dtype in FP8:
        return eights(name, stored, scales, None)
    return _fours(name, stored, scales, None)


def _nvfp4(pieces: Pieces, module: str, said: Mapping[str, Any]) -> Decoded:
    """NVFP4Tensor: E2M1 in pairs under E4M3 per 16, and perhaps a scale for the whole."""
    name = f"{module}.weight"
    if said.get("is_swizzled_scales"):
        raise ModelError(f"tensor {printable(name)} has its scales in a GPU's order: not read")
    stored = pieces.take(f"{module}{DATA}qdata", "U8", of=name)
    scales = pieces.take(f"{module}{DATA}scale", "F8_E4M3", of=name)
    shared = pieces.find(f"{module}{DATA}per_tensor_scale", "F32")
    if shared is None:
        return _fours(name, stored, scales, None)
    if prod(shared.shape) != 1:
        raise FormatError(
            f"tensor {printable(shared.name)} has shape {shared.shape}, not one number"
        )
    factor = whole(shared)[0]
    return _fours(name, stored, scales, lambda x: x * factor)


def _fours(name: str, stored: Any, scales: Any, shared: Any) -> Fours:
    if len(stored.shape) != 2 or not all(stored.shape):
        raise FormatError(f"tensor {printable(name)} has shape {stored.shape}, no matrix")
    return Fours(name, stored, scales, shared)


KINDS: dict[str, Callable[[Pieces, str, Mapping[str, Any]], Decoded]] = {
    "Int8Tensor": _bytes,
    "IntxUnpackedToInt8Tensor": _bytes,
    "Int4Tensor": _nibbles,
    "Float8Tensor": _eights,
    "MXTensor": _powers,
    "NVFP4Tensor": _nvfp4,
}

FORMAT = TorchAO()

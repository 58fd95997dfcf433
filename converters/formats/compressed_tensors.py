"""Checkpoints of compressed-tensors (LLM Compressor): integers and floats of 8, 4 and fewer bits.

Layouts: the compressors of github.com/vllm-project/compressed-tensors. What a weight's own tensors
say is enough, so that no pattern of a stranger's config.json is ever run against names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ggq.converters.formats.base import Decoded, Pieces, Rows, expect_shape, numbers, whole
from ggq.converters.formats.floats import (
    FP8,
    SCALES,
    Fours,
    block_size,
    eights,
    grid,
    scaled_block,
)
from ggq.converters.formats.integers import Coded, Integers, pick, unpack
from ggq.converters.safetensors import FLOATS
from ggq.errors import FormatError, ModelError, printable

__all__ = ["FORMAT"]

FORMATS = (
    *("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "dense"),
    *("mxfp4-pack-quantized", "nvfp4-pack-quantized", "mxfp8-quantized", "mixed-precision"),
)
OF_ACTIVATIONS = (
    *("input_scale", "input_zero_point", "input_global_scale", "input_g_idx"),
    *("output_scale", "output_zero_point", "q_scale", "k_scale", "v_scale"),
    *("q_zero_point", "k_zero_point", "v_zero_point"),
)
DEFAULT_BITS = (4, 8, 2, 3, 5, 6, 7, 1)


class CompressedTensors:
    """Modules of ``weight_packed`` or ``weight`` with ``weight_scale``, and what these need."""

    methods = ("compressed-tensors",)
    beside = None

    def decode(self, pieces: Pieces, settings: Mapping[str, Any]) -> None:
        groups = list(_groups(settings))
        sizes = (block_size(g.get("block_structure"), "block_structure") for g in groups)
        block = min((size for size in sizes if size is not None), default=None)
        told = [g["num_bits"] for g in groups if isinstance(g.get("num_bits"), int)]
        bits = [b for b in dict.fromkeys(told) if b in DEFAULT_BITS] or list(DEFAULT_BITS)
        pieces.drop(*OF_ACTIVATIONS)
        for module in pieces.modules(".weight_packed"):
            pieces.put(_packed(pieces, module, bits))
        for module in pieces.modules(".weight_scale"):
            pieces.put(_plain(pieces, module, block))


def _groups(settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the settings of weights of each group; ModelError for what is not decoded."""
    where = "config.json: quantization_config"
    named = [settings.get("format")]
    groups = settings.get("config_groups") or {}
    if not isinstance(groups, Mapping) or not all(isinstance(g, Mapping) for g in groups.values()):
        raise FormatError(f"{where}.config_groups is no object of objects")
    named += [g.get("format") for g in groups.values()]
    for name in named:
        if name is not None and name not in FORMATS:
            raise ModelError(f"{where}: format {printable(repr(name))} is not supported")
    sparsity = settings.get("sparsity_config")
    kind = sparsity.get("format") if isinstance(sparsity, Mapping) else None
    if kind not in (None, "dense"):
        raise ModelError(f"{where}: sparsity format {printable(repr(kind))} is not supported")
    transforms = settings.get("transform_config")
    if transforms and (not isinstance(transforms, Mapping) or transforms.get("config_groups")):
        raise ModelError(f"{where}: transforms (rotations at run time) are not supported")
    for group in groups.values():
        if isinstance(group.get("weights"), Mapping):
            yield group["weights"]


def _packed(pieces: Pieces, module: str, bits: list[int]) -> Decoded:
    name = f"{module}.weight_packed"
    packed = pieces.take(name, "I32", "U8", of=name)
    scales = pieces.take(f"{module}.weight_scale", *SCALES, of=name)
    if len(packed.shape) != 2 or not all(packed.shape):
        raise FormatError(f"tensor {printable(name)} has shape {packed.shape}, no matrix")
    if packed.dtype == "I32":
        return _packed_integers(pieces, module, packed, scales, bits)
    shared = pieces.find(f"{module}.weight_global_scale", "F32")
    if shared is not None:
        expect_shape(shared, (1,), ())
    divide = None if shared is None else lambda x: x / whole(shared)[0]
    made = Fours(f"{module}.weight", packed, scales, divide)
    shape = pieces.find(f"{module}.weight_shape", "I64", "I32")
    if shape is not None and tuple(whole(shape).tolist()) != made.shape:
        raise FormatError(f"tensor {printable(shape.name)} does not say {made.shape}")
    return made


def _packed_integers(
    pieces: Pieces, module: str, packed: Any, scales: Any, bits: list[int]
) -> Integers:
    told = pieces.take(f"{module}.weight_shape", "I64", "I32", of=packed.name)
    rows, columns = _two_numbers(told)
    words = packed.shape[1]
    fitting = [b for b in bits if words == -(-columns * b // 32)]
    loose = [b for b in bits if words == -(-columns // (32 // b))]  # as older versions packed
    if packed.shape[0] != rows or not fitting + loose:
        raise FormatError(
            f"tensor {printable(packed.name)} of shape {packed.shape} does not hold a weight of "
            f"{(rows, columns)} in {' or '.join(str(b) for b in bits)} bits"
        )
    n = (fitting + loose)[0]

    def codes(chosen: Rows) -> np.ndarray:
        stored = packed.stored()[chosen]
        found = unpack(stored, n) if fitting else _unpack_words(stored, n)
        return found[:, :columns]

    return _integers(pieces, module, (rows, columns), (n, codes), scales)


def _two_numbers(told: Any) -> tuple[int, int]:
    expect_shape(told, (2,))
    rows, columns = whole(told).tolist()
    if not (0 < rows < 1 << 31 and 0 < columns < 1 << 31):
        raise FormatError(f"tensor {printable(told.name)} says {(rows, columns)}")
    return rows, columns


def _unpack_words(stored: np.ndarray, bits: int) -> np.ndarray:
    """Return codes of which each word holds as many as fit whole."""
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    codes = (stored.view(np.uint32)[..., None] >> shifts) & np.uint32((1 << bits) - 1)
    return codes.astype(np.uint8).reshape(len(stored), -1)


def _integers(
    pieces: Pieces, module: str, shape: tuple[int, int], coded: tuple[int, Any], scales: Any
) -> Integers:
    """Return a weight of integers; ``coded``: bits and what reads codes, from 0 on."""
    bits, codes = coded
    rows, columns = shape
    block = scaled_block(scales.shape, shape, None)
    groups = -(-columns // block[1])
    index = pieces.find(f"{module}.weight_g_idx", "I32", "I64")
    order = None
    if index is not None:
        expect_shape(index, (columns,))
        order = whole(index).astype(np.int64)
        if (order < 0).all() or (order == np.arange(columns) // block[1]).all():
            order = None  # -1: never set
        elif order.min() < 0 or order.max() >= groups:
            raise FormatError(f"tensor {printable(index.name)} points outside its {groups} groups")
    zeros = _zeros(pieces, module, (rows, groups), bits)
    read = grid(scales, shape, block)
    half = scales.dtype == "F16"
    return Integers(
        f"{module}.weight", shape, Coded(bits, block[1], codes, read, zeros, order, half)
    )


def _zeros(pieces: Pieces, module: str, shape: tuple[int, int], bits: int) -> Any:
    """Return the zero of all codes, or what reads those of rows."""
    middle = 1 << (bits - 1)
    stored = pieces.find(f"{module}.weight_zero_point", "I32", "I8", *FLOATS)
    if stored is None:
        return middle
    rows, groups = shape
    if stored.dtype == "I32" and stored.shape == (-(-rows * bits // 32), groups):
        return lambda r: pick(stored.stored().T, numbers(r, rows), bits).T.astype(np.float32)
    if not np.count_nonzero(stored.stored()):
        return middle
    expect_shape(stored, shape)
    read = stored.read if stored.dtype in FLOATS else lambda r: stored.stored()[r].astype("f4")
    found = read(slice(None))
    if not ((found == np.rint(found)) & (found >= -middle) & (found < middle)).all():
        raise FormatError(f"tensor {printable(stored.name)} holds zeros that {bits} bits do not")
    return lambda r: read(r) + np.float32(middle)


def _plain(pieces: Pieces, module: str, block: tuple[int, int] | None) -> Decoded:
    """Return a weight of whole bytes: int8 or 8-bit floats."""
    name = f"{module}.weight"
    scales = pieces.take(f"{module}.weight_scale", *SCALES, of=name)
    stored = pieces.take(name, "I8", *FP8, of=scales.name)
    if stored.dtype in FP8:
        zero = pieces.find(f"{module}.weight_zero_point")
        if zero is not None and np.count_nonzero(zero.stored()):
            raise FormatError(
                f"tensor {printable(zero.name)} shifts floats, which is not supported"
            )
        return eights(name, stored, scales, block)
    if len(stored.shape) != 2 or not all(stored.shape):
        raise FormatError(f"tensor {printable(name)} has shape {stored.shape}, no matrix")

    def codes(rows: Rows) -> np.ndarray:
        return stored.stored()[rows].view(np.uint8) ^ np.uint8(128)

    return _integers(pieces, module, stored.shape, (8, codes), scales)


FORMAT = CompressedTensors()

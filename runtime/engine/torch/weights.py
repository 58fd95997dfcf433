"""A model's weights on a torch device: packed blocks or halves, copied when first used.

It knows no operation; block types are decoded by their own numpy code (arrays.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ggq.runtime.backends.base import Weight
from ggq.runtime.backends.torch.arrays import TorchBlocks, upload
from ggq.runtime.engine.torch.devices import free_bytes

__all__ = ["DeviceWeights", "Matrix"]

_CHUNK = 1 << 24  # weights decoded at a time: temporaries of 64 MB
_SHARE = 0.8  # of the free memory that weights may take
_SMALL = 1 << 20  # a float32 matrix up to this size stays float32: routers, test models
_FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<i2"}


class Matrix:
    """Rows of weights on a device: a tensor of floats or packed blocks of ``kind``."""

    def __init__(self, kind: Any, stored: torch.Tensor | TorchBlocks, n_columns: int):
        self.kind, self.stored, self.n_columns = kind, stored, n_columns

    @property
    def packed(self) -> bool:
        """Whether using the rows means decoding blocks."""
        return isinstance(self.stored, TorchBlocks)

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def nbytes(self) -> int:
        """Return the bytes on the device."""
        return self.stored.nbytes

    def take(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the rows ``ids`` as float32."""
        if isinstance(self.stored, TorchBlocks):
            return self._decoded(self.stored.map(lambda field: field.index_select(0, ids)))
        return self.stored.index_select(0, ids).float()

    def chunks(self, first: int, end: int) -> Iterator[torch.Tensor]:
        """Yield rows ``first`` .. ``end`` in order, as they are stored or decoded to float32."""
        step = max(1, _CHUNK // self.n_columns) if self.packed else max(1, end - first)
        for start in range(first, end, step):
            yield self._rows(slice(start, min(end, start + step)))

    def _rows(self, part: slice) -> torch.Tensor:
        if isinstance(self.stored, TorchBlocks):
            return self._decoded(self.stored.map(lambda field: field[part]))
        return self.stored[part]

    def _decoded(self, blocks: TorchBlocks) -> torch.Tensor:
        rows: torch.Tensor = self.kind.dequantize(blocks).tensor
        return rows


class DeviceWeights:
    """The tensors of ``weights`` on ``device``; ``release(name)`` is called after each copy.

    ``kind``: "packed" blocks, "f16", or "auto": f16 where it fits in the device's free memory.
    """

    def __init__(
        self,
        weights: Mapping[str, Weight],
        device: torch.device,
        kind: str,
        release: Callable[[str], None] | None = None,
    ):
        self.weights, self.device, self._release = weights, device, release
        self._kind = kind
        self._matrices: dict[str, Matrix] = {}
        self._vectors: dict[str, torch.Tensor] = {}

    @cached_property
    def kind(self) -> str:
        """Return "packed" or "f16"; "auto" is decided when the first tensor is copied."""
        if self._kind != "auto":
            return self._kind
        halves = sum(2 * math.prod(weight.shape) for weight in self.weights.values())
        return "f16" if halves <= _SHARE * free_bytes(self.device) else "packed"

    def matrix(self, weight: Weight, name: str) -> Matrix:
        """Return the tensor ``name`` as rows, experts one below the other."""
        if name not in self._matrices:
            self._matrices[name] = self._load(weight)
            if self._release:
                self._release(name)
        return self._matrices[name]

    def floats(self, weight: Weight, name: str) -> torch.Tensor:
        """Return the small tensor ``name`` as float32 in its own shape."""
        if name not in self._vectors:
            values = np.array(weight.dequantized(), np.float32)
            self._vectors[name] = torch.from_numpy(values).to(self.device)
        return self._vectors[name]

    def _load(self, weight: Weight) -> Matrix:
        kind, raw, n_columns = weight.type, weight.raw, int(weight.shape[-1])
        if kind.name not in _FLOATS:
            blocks = upload(np.ascontiguousarray(raw).view(kind.layout), self.device)
            packed = Matrix(kind, blocks, n_columns)
            return packed if self.kind == "packed" else self._halves(packed)
        rows = torch.from_numpy(np.array(raw, order="C").view(_FLOATS[kind.name]))
        rows = (rows.view(torch.bfloat16) if kind.name == "BF16" else rows).to(self.device)
        stays = self.kind == "packed" or kind.name == "F16"
        stays = stays or (kind.name == "F32" and rows.numel() <= _SMALL)
        matrix = Matrix(kind, rows, n_columns)
        return matrix if stays else self._halves(matrix)

    def _halves(self, matrix: Matrix) -> Matrix:
        """Return the matrix in float16; as it is where a value is too large for that."""
        shape = len(matrix), matrix.n_columns
        halves = torch.empty(shape, dtype=torch.float16, device=self.device)
        start = 0
        for rows in matrix.chunks(0, len(matrix)):
            halves[start : start + len(rows)] = rows.half()
            start += len(rows)
        if not bool(halves.abs().amax() < float("inf")):
            return matrix
        return Matrix(matrix.kind, halves, matrix.n_columns)

    @property
    def nbytes(self) -> int:
        """Return the bytes on the device."""
        matrices = sum(matrix.nbytes for matrix in self._matrices.values())
        return matrices + sum(vector.nbytes for vector in self._vectors.values())

    def clear(self) -> None:
        """Give the device's memory back."""
        self._matrices.clear()
        self._vectors.clear()

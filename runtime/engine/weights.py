"""A model's tensors by name: blocks in the file's mapping, zero copy, addresses for kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ggq import quants
from ggq.gguf import GGUFFile
from ggq.runtime.cache.memory import free_memory

__all__ = ["Tensor", "Weights"]


class Tensor:
    """A tensor: ``raw`` uint8 (rows, row bytes) holds blocks of ``type``; ``shape``: rows first."""

    def __init__(self, name: str, shape: tuple[int, ...], type_id: int, raw: np.ndarray):
        self.name, self.shape, self.raw = name, shape, raw
        self.type = quants.by_id(type_id)

    @property
    def address(self) -> int:
        """Return the address of the first block, for kernels."""
        return self.raw.ctypes.data

    @property
    def row_bytes(self) -> int:
        """Return the bytes of one row of blocks."""
        return int(self.raw.shape[1])

    def dequantized(self) -> np.ndarray:
        """Return the values as float32 in the tensor's shape."""
        return self.type.dequantize(self.raw).reshape(self.shape)

    @cached_property
    def _padded(self) -> np.ndarray:
        values = self.dequantized().ravel()
        padded = np.zeros(-(-values.size // 16) * 16 + 16, np.float32)
        padded[: values.size] = values
        return padded

    @cached_property
    def _transposed(self) -> np.ndarray:
        return np.ascontiguousarray(self.dequantized().T, np.float32)

    @property
    def transposed(self) -> int:
        """Address of a matrix as float32 with its columns as rows."""
        return self._transposed.ctypes.data

    @property
    def vector(self) -> int:
        """Address of the values as float32, padded so that whole vectors may be read."""
        return self._padded.ctypes.data


class Weights(Mapping[str, Tensor]):
    """The tensors of a GGUF file; ``adapters`` (adapters.py): what changes them in use."""

    def __init__(self, gguf: GGUFFile, adapters: Sequence[Any] = ()):
        self._gguf, self.adapters = gguf, adapters
        self._tensors: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            info = self._gguf.tensors[name]
            raw = self._gguf.data(name)
            shape = tuple(int(n) for n in info.shape)
            self._tensors[name] = Tensor(name, shape, info.type_id, raw)
        return self._tensors[name]

    @cached_property
    def beyond_memory(self) -> bool:
        """Whether the files are larger than the memory that was free when this was first asked."""
        mapped = sum(shard.size for shard in self._gguf.shards if shard.map is not None)
        free = free_memory()
        return free is not None and mapped > free

    def check_unchanged(self) -> None:
        """Raise FormatError where a mapped file was cut or written to since it was opened."""
        self._gguf.check_unchanged()
        for adapter in self.adapters:
            adapter.file.check_unchanged()

    def __iter__(self) -> Iterator[str]:
        return iter(self._gguf.tensors)

    def __len__(self) -> int:
        return len(self._gguf.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._gguf.tensors

"""Torch tensors that numpy's block decoders take for arrays: one decoder per type, two libraries.

A block type's ``dequantize`` is some dozen numpy calls on the fields of its layout. Numpy hands
calls on foreign arrays to their class (NEP 13 and 18); `TorchArray` answers them with torch
operations that also MPS has, in the same order, so the float32 values are the same bits. It knows
no block type.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin

__all__ = ["TorchArray", "TorchBlocks", "upload"]

# Signed integers stand for the unsigned ones that MPS lacks: of the same width in memory, where
# they are masked when read, and wide enough to hold the values in computations.
_STORED = {"u2": "<i2", "u4": "<i4"}
_COMPUTED = {
    "u1": torch.uint8,
    "i1": torch.int8,
    "u2": torch.int32,
    "i4": torch.int32,
    "u4": torch.int64,
    "f2": torch.float16,
    "f4": torch.float32,
}
_UFUNCS: dict[Any, Callable[..., torch.Tensor]] = {
    np.add: torch.add,
    np.subtract: torch.sub,
    np.multiply: torch.mul,
    np.negative: torch.neg,
    np.bitwise_and: torch.bitwise_and,
    np.bitwise_or: torch.bitwise_or,
    np.bitwise_xor: torch.bitwise_xor,
    np.left_shift: torch.Tensor.__lshift__,
    np.right_shift: torch.Tensor.__rshift__,
}


def _code(dtype: Any) -> str:
    code: str = np.dtype(dtype).str[1:]
    return code


@functools.lru_cache(maxsize=256)
def _constant(raw: bytes, code: str, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    values = np.frombuffer(raw, code).reshape(shape)
    return torch.tensor(values.tolist(), dtype=_COMPUTED[code], device=device)


@functools.lru_cache(maxsize=64)
def _table(table: _ById, device: torch.device) -> torch.Tensor:
    values = table.array
    return torch.from_numpy(values.copy()).to(device, _COMPUTED[_code(values.dtype)])


class _ById:
    """A constant array as a key of a cache, which keeps it alive and so its identity unique."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __hash__(self) -> int:
        return id(self.array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and self.array is other.array


class TorchArray(NDArrayOperatorsMixin):
    """A tensor that answers to the numpy calls of block decoders; others raise TypeError."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        function = _UFUNCS.get(ufunc)
        if function is None or method not in ("__call__", "reduce"):
            return NotImplemented
        if method == "reduce":
            parts = self.tensor.unbind(options["axis"])
            return TorchArray(functools.reduce(function, parts))
        result = TorchArray(function(*map(self._operand, inputs)))
        if "out" not in options:
            return result
        (target,) = options["out"]
        target.tensor = result.tensor
        return target

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        own = _FUNCTIONS.get(function)
        return NotImplemented if own is None else own(*args, **kwargs)

    def _operand(self, value: Any) -> Any:
        """Return what torch takes for an operand: small constants are kept on the device."""
        if isinstance(value, TorchArray):
            return value.tensor
        if isinstance(value, np.ndarray):
            raw = np.ascontiguousarray(value).tobytes()
            return _constant(raw, _code(value.dtype), value.shape, self.tensor.device)
        return value.item() if isinstance(value, np.generic) else value

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, key: Any) -> TorchArray:
        return TorchArray(self.tensor[key])

    def reshape(self, *shape: int) -> TorchArray:
        """Return the values in another shape."""
        return TorchArray(self.tensor.reshape(*shape))

    def astype(self, dtype: Any) -> TorchArray:
        """Return the values as another type, unsigned ones as a wider signed type.

        Numbers in training hold what the type can hold already; a cast would end their gradient.
        """
        if self.tensor.requires_grad:
            return self
        return TorchArray(self.tensor.to(_COMPUTED[_code(dtype)]))

    def view(self, dtype: Any) -> TorchArray:
        """Return 16-bit words as the halves with their bits."""
        assert _code(dtype) == "f2"
        return TorchArray(self.tensor.to(torch.int16).view(torch.float16))

    def look_up(self, table: np.ndarray) -> TorchArray:
        """Return ``table[self]``; the table is copied to the device once and kept."""
        values = _table(_ById(table), self.tensor.device)
        rows = values.index_select(0, self.tensor.flatten().int())
        return TorchArray(rows.reshape(self.tensor.shape + rows.shape[1:]))


def _where(condition: TorchArray, a: Any, b: Any) -> TorchArray:
    chosen = condition.tensor != 0
    a, b = condition._operand(a), condition._operand(b)
    return TorchArray(torch.where(chosen, a, b))


def _concatenate(arrays: list[TorchArray], axis: int = 0) -> TorchArray:
    return TorchArray(torch.cat([a.tensor for a in arrays], dim=axis))


def _repeat(array: TorchArray, times: int, axis: int) -> TorchArray:
    return TorchArray(array.tensor.repeat_interleave(times, dim=axis))


def _zeros_like(array: TorchArray) -> TorchArray:
    return TorchArray(torch.zeros_like(array.tensor))


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.where: _where,
    np.concatenate: _concatenate,
    np.repeat: _repeat,
    np.zeros_like: _zeros_like,
}


class TorchBlocks:
    """Blocks on a device, their fields apart: what a decoder sees as a structured array.

    ``fields``: name -> tensor (rows, blocks, ...) or, for nested ones, TorchBlocks.
    """

    def __init__(self, fields: dict[str, Any], kinds: dict[str, str]):
        self.fields, self._kinds = fields, kinds

    def __getitem__(self, name: str) -> Any:
        field = self.fields[name]
        if isinstance(field, TorchBlocks):
            return field
        code = self._kinds[name]
        if code in _STORED:
            field = field.to(_COMPUTED[code]) & ((1 << 8 * int(code[1])) - 1)
        return TorchArray(field)

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))

    @property
    def shape(self) -> tuple[int, int]:
        """Return (rows, blocks)."""
        return tuple(next(iter(self.fields.values())).shape[:2])

    @property
    def nbytes(self) -> int:
        """Return the bytes on the device."""
        return sum(field.nbytes for field in self.fields.values())

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> TorchBlocks:
        """Return blocks with ``function`` of each field, which may choose rows."""
        fields = {
            name: f.map(function) if isinstance(f, TorchBlocks) else function(f)
            for name, f in self.fields.items()
        }
        return TorchBlocks(fields, self._kinds)


def upload(blocks: np.ndarray, device: torch.device) -> TorchBlocks:
    """Copy a structured array (rows, blocks) to a device, each field by itself, no byte more."""
    fields: dict[str, torch.Tensor | TorchBlocks] = {}
    kinds: dict[str, str] = {}
    for name in blocks.dtype.names or ():
        values = blocks[name]
        if values.dtype.names:
            fields[name] = upload(values, device)
            continue
        kinds[name] = _code(values.dtype)
        own = np.array(values, order="C")  # torch takes no read-only memory
        own = own.view(_STORED.get(kinds[name], values.dtype))
        fields[name] = torch.from_numpy(own).to(device)
    return TorchBlocks(fields, kinds)

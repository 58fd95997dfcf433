"""What every quantized format shares: taking a weight's pieces, and the tensor they make together.

It knows no format and no block type.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from ggq.errors import FormatError, printable

__all__ = [
    "Decoded",
    "Format",
    "Pieces",
    "Rows",
    "TensorLike",
    "expect_shape",
    "numbers",
    "setting",
    "whole",
]

Rows = slice | np.ndarray


class TensorLike(Protocol):
    """A tensor of a checkpoint, stored or decoded: `StoredTensor` and `Decoded` are."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, rows: Any) -> np.ndarray:
        """Return rows as float32."""


class Decoded(ABC):
    """A weight in several pieces, (rows, columns), decoded as it is read.

    ``dtype`` is the type its values have: F32, or the block type that holds them as they are.
    """

    dtype = "F32"

    def __init__(self, name: str, shape: tuple[int, int]) -> None:
        self.name, self.shape = name, shape

    @abstractmethod
    def values(self, rows: Rows) -> np.ndarray:
        """Return those rows as float32."""

    def read(self, rows: Rows | tuple[Rows, Rows]) -> np.ndarray:
        """Return rows, or (rows, columns), as float32; not finite where a scale is not."""
        chosen, columns = rows if isinstance(rows, tuple) else (rows, None)
        with np.errstate(all="ignore"):
            x = self.values(chosen)
        return x if columns is None else x[:, columns]

    def fits(self, type_name: str) -> bool:
        """Tell whether that type's blocks can hold these codes and scales as they are."""
        return False

    def rounds(self, type_name: str) -> bool:
        """Tell whether those blocks round a scale, since they hold half precision."""
        return False

    def blocks(self, type_name: str, rows: Rows) -> np.ndarray:
        """Return rows in blocks of a type that `fits`, uint8 (rows, bytes)."""
        raise NotImplementedError(type_name)


class Format(Protocol):
    """One file of this folder: the ``quant_method`` names it answers to, and its decoder.

    ``beside``: the file that holds the settings where config.json has none.
    """

    @property
    def methods(self) -> tuple[str, ...]: ...
    @property
    def beside(self) -> str | None: ...

    def decode(self, pieces: Pieces, settings: Mapping[str, Any]) -> None:
        """Replace the pieces of every weight by one tensor; FormatError, ModelError."""


class Pieces:
    """The tensors of a checkpoint while a format takes the pieces of its weights out."""

    def __init__(
        self, tensors: Mapping[str, TensorLike], metadata: Mapping[str, str] | None = None
    ) -> None:
        self.tensors = dict(tensors)
        self.metadata = dict(metadata or {})

    def modules(self, suffix: str) -> Iterator[str]:
        """Yield the modules that have a tensor ``module + suffix``."""
        for name in list(self.tensors):
            if name.endswith(suffix):
                yield name.removesuffix(suffix)

    def find(self, name: str, *dtypes: str) -> Any | None:
        """Take a tensor out, None where there is none; FormatError: none of the ``dtypes``."""
        found = self.tensors.pop(name, None)
        if found is not None and dtypes and found.dtype not in dtypes:
            wanted = " or ".join(dtypes)
            raise FormatError(f"tensor {printable(name)} holds {found.dtype}, not {wanted}")
        return found

    def take(self, name: str, *dtypes: str, of: str) -> Any:
        """Take a tensor out that the weight ``of`` cannot be read without; FormatError."""
        found = self.find(name, *dtypes)
        if found is None:
            raise FormatError(f"tensor {printable(of)} has no {printable(name)} beside it")
        return found

    def drop(self, *endings: str) -> None:
        """Leave out tensors that say nothing about weights: scales of activations and the like."""
        for name in list(self.tensors):
            if name.rpartition(".")[2] in endings:
                del self.tensors[name]

    def drop_zeros(self, name: str) -> None:
        """Leave out a bias of zeros: AutoGPTQ saved one with every module, whatever the model."""
        bias: Any = self.tensors.get(name)
        if bias is not None and not np.count_nonzero(bias.stored()):
            del self.tensors[name]

    def put(self, tensor: Decoded) -> None:
        """Add a decoded weight; FormatError where its name is taken."""
        if tensor.name in self.tensors:
            raise FormatError(f"tensor {printable(tensor.name)} is there both quantized and plain")
        if len(tensor.shape) != 2 or not all(tensor.shape):
            raise FormatError(
                f"tensor {printable(tensor.name)} has shape {tensor.shape}, no matrix"
            )
        self.tensors[tensor.name] = tensor


def numbers(rows: Rows, n_rows: int) -> np.ndarray:
    """Return ``rows`` as row numbers."""
    return np.arange(*rows.indices(n_rows)) if isinstance(rows, slice) else np.asarray(rows)


def expect_shape(tensor: Any, *shapes: tuple[int, ...]) -> None:
    """Raise FormatError where the tensor has none of the shapes."""
    if tensor.shape not in shapes:
        wanted = " or ".join(str(s) for s in shapes)
        raise FormatError(
            f"tensor {printable(tensor.name)} has shape {tensor.shape}, its weight needs {wanted}"
        )


def whole(tensor: Any) -> np.ndarray:
    """Return a small tensor flat, as it is stored."""
    return tensor.stored().reshape(-1)


def setting(settings: Mapping[str, Any], name: str, default: int) -> int:
    """Return a whole number of quantization_config; FormatError where it is none."""
    value = settings.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(
            f"config.json: quantization_config.{name} is {printable(repr(value))}, no number"
        )
    return value

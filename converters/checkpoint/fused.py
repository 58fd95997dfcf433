"""Checkpoint tensors that hold several GGUF tensors at once, read in slabs: experts of gpt-oss.

Each class is a source tensor (`tensors.py`) over parts of a checkpoint. It knows layouts of values
and of MXFP4 blocks, no names and no architecture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ggq.converters.safetensors import FLOATS, StoredTensor
from ggq.errors import ModelError, printable

__all__ = [
    "Columns",
    "Computed",
    "ExpertColumns",
    "ExpertRows",
    "LastRows",
    "Stack",
    "experts",
    "first_beyond",
    "flat_columns",
    "half_columns",
    "latent_keys",
    "latent_values",
    "stack",
    "transposed",
    "unless_zero",
]


def float_type(part: StoredTensor) -> str:
    """Return the type a part is read as: its own, F32 where it is quantized."""
    return part.dtype if part.dtype in FLOATS else "F32"


@dataclass(frozen=True)
class Computed:
    """A source tensor whose floats are made of those of ``parts``: never stored bytes as they lie.

    Its type is that of the first part, F32 where that is quantized.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[StoredTensor, ...]

    @property
    def type_name(self) -> str:
        return float_type(self.parts[0])

    def raw(self, start: int, stop: int) -> np.ndarray | None:
        return None


@dataclass(frozen=True)
class Vector(Computed):
    """A vector as it is stored."""

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.parts[0].read(slice(0, 1))


@dataclass(frozen=True)
class Columns(Computed):
    """Every ``step``-th column from ``first`` on of a matrix: gate and up biases in turns."""

    first: int
    step: int

    @property
    def type_name(self) -> str:
        return "F32"

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.parts[0].read((slice(start, stop), slice(self.first, None, self.step)))


@dataclass(frozen=True)
class ExpertColumns(Computed):
    """Transposed experts (n_expert, n_in, columns): row r is column first + step * r.

    ``pitch``: the rows from one expert to the next, where these are more than n_in.
    """

    first: int
    step: int
    pitch: int = 0

    def read(self, start: int, stop: int) -> np.ndarray:
        _, n_out, n_in = self.shape
        expert, row = divmod(start, n_out)
        assert row + stop - start <= n_out, "a slab lies within one expert"
        begin, end = (self.first + self.step * (row + n) for n in (0, stop - start))
        top = expert * (self.pitch or n_in)
        rows = slice(top, top + n_in)
        return np.ascontiguousarray(self.parts[0].read((rows, slice(begin, end, self.step))).T)


@dataclass(frozen=True)
class Transposed(Computed):
    """A matrix whose columns are the source's rows, as GPT-2's Conv1D stores it."""

    def read(self, start: int, stop: int) -> np.ndarray:
        return np.ascontiguousarray(self.parts[0].read((slice(None), slice(start, stop))).T)


@dataclass(frozen=True)
class FirstBeyond(Computed):
    """A table of fewer rows than the file's: the first one stands for those past its end."""

    def read(self, start: int, stop: int) -> np.ndarray:
        (part,) = self.parts
        rows = np.arange(start, stop)
        return part.read(np.where(rows < part.shape[0], rows, 0))


@dataclass(frozen=True)
class ExpertRows:
    """Experts in MXFP4 as OpenAI stores them: 16 bytes of neighbouring pairs, scales beside them.

    The parts are blocks (n_expert, step * n_out, n_blocks, 16) and scales without the last
    dimension; row r is row first + step * r of its expert.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[StoredTensor, ...]
    first: int
    step: int
    type_name: str = "MXFP4"

    def read(self, start: int, stop: int) -> np.ndarray:
        from ggq import quants

        blocks = self.raw(start, stop)
        assert blocks is not None, "experts in MXFP4 are stored as blocks"
        return quants.get("MXFP4").dequantize(blocks)

    def raw(self, start: int, stop: int) -> np.ndarray | None:
        _, n_out, n_in = self.shape
        expert, row = np.divmod(np.arange(start, stop), n_out)
        index = expert * n_out * self.step + self.first + self.step * row
        blocks, scales = self.parts
        pairs = blocks.stored().reshape(-1, n_in // 32, 16)[index]
        codes = np.stack((pairs & 15, pairs >> 4), axis=-1).reshape(*pairs.shape[:2], 32)
        packed = np.empty((*pairs.shape[:2], 17), np.uint8)  # ggml: the scale, then i with i + 16
        packed[..., 0] = scales.stored().reshape(-1, n_in // 32)[index]
        packed[..., 1:] = codes[..., :16] | codes[..., 16:] << 4
        return packed.reshape(len(index), -1)


@dataclass(frozen=True)
class Stack(Computed):
    """One of ``n_parts`` matrices that each expert of (n_expert, n_parts * n_out, n_in) holds.

    Without experts it is one of those that a matrix (n_parts * n_out, n_in) holds.
    """

    part: int
    n_parts: int

    def read(self, start: int, stop: int) -> np.ndarray:
        n_out = self.shape[-2]
        expert, row = divmod(start, n_out)
        assert row + stop - start <= n_out, "a slab lies within one expert"
        first = (expert * self.n_parts + self.part) * n_out + row
        return self.parts[0].read(slice(first, first + stop - start))


@dataclass(frozen=True)
class LastRows(Computed):
    """The last n_out of ``pitch`` rows of every head (n_head * pitch, n_in)."""

    pitch: int

    def read(self, start: int, stop: int) -> np.ndarray:
        n_out = self.shape[1]
        head, row = divmod(start, n_out)
        assert row + stop - start <= n_out, "a slab lies within one head"
        first = (head + 1) * self.pitch - n_out + row
        return self.parts[0].read(slice(first, first + stop - start))


def latent_keys(name: str, shape: tuple[int, ...], parts: Sequence[StoredTensor]) -> ExpertColumns:
    """Return a latent attention's keys: each head's first rows, transposed; ModelError."""
    n_head, n_out, n_in = shape
    return ExpertColumns(
        name, shape, tuple(parts), 0, 1, _head_rows(name, parts[0], n_head, n_in, n_out)
    )


def latent_values(name: str, shape: tuple[int, ...], parts: Sequence[StoredTensor]) -> LastRows:
    """Return a latent attention's values: each head's last rows; ModelError."""
    return LastRows(name, shape, tuple(parts), _head_rows(name, parts[0], *shape))


def _head_rows(name: str, found: StoredTensor, n_head: int, needed: int, width: int) -> int:
    """Return the rows of a head in a matrix of all heads' keys and values; ModelError."""
    if len(found.shape) != 2:
        raise ModelError(f"{printable(found.name)} has shape {found.shape}, no matrix ({name})")
    rows, columns = found.shape
    if rows % n_head or rows // n_head <= needed or columns != width:
        raise ModelError(
            f"{name} needs {n_head} heads of more than {needed} x {width}, the checkpoint has "
            f"{printable(found.name)} {found.shape}"
        )
    return rows // n_head


def stack(
    name: str, shape: tuple[int, ...], parts: Sequence[StoredTensor], part: int, n_parts: int
) -> Stack | ExpertColumns:
    """Return the tensor ``name`` over a stack of experts, transposed or not; ModelError."""
    found = parts[0]
    *n_expert, n_out, n_in = shape  # no experts: one matrix
    if found.dtype in FLOATS and found.shape == (*n_expert, n_out * n_parts, n_in):
        return Stack(name, shape, tuple(parts), part, n_parts)
    if found.dtype in FLOATS and n_expert and found.shape == (*n_expert, n_in, n_out * n_parts):
        return ExpertColumns(name, shape, tuple(parts), part * n_out, 1)
    raise ModelError(
        f"{name} needs {n_parts} x {shape}, the checkpoint has {printable(found.name)} "
        f"{found.dtype} {found.shape}"
    )


def experts(
    name: str, shape: tuple[int, ...], parts: Sequence[StoredTensor], first: int, step: int
) -> ExpertColumns | ExpertRows | Columns:
    """Return the tensor ``name`` over floats or over (blocks, scales); ModelError for others."""
    whole = prod(shape) * step
    sizes = [prod(p.shape) for p in parts]
    parts = tuple(parts)
    if len(parts) == 2 and sizes == [whole // 2, whole // 32] and parts[0].dtype == "U8":
        return ExpertRows(name, shape, parts, first, step)
    if len(parts) == 1 and parts[0].dtype in FLOATS:
        if len(shape) == 2 and parts[0].shape == (shape[0], shape[1] * step):
            return Columns(name, shape, parts, first, step)
        if len(shape) == 3 and parts[0].shape == (shape[0], shape[2], shape[1] * step):
            return ExpertColumns(name, shape, parts, first, step)
    found = ", ".join(f"{printable(p.name)} {p.dtype} {p.shape}" for p in parts)
    raise ModelError(f"{name} needs {step} x {shape}, the checkpoint has {found}")


def flat_columns(name: str, shape: tuple[int, ...], parts: Sequence[StoredTensor]) -> ExpertColumns:
    """Return the experts ``name`` over their transposes, one below the other; ModelError."""
    n_expert, n_out, n_in = shape
    found = parts[0]
    if found.dtype not in FLOATS or found.shape != (n_expert * n_in, n_out):
        what = f"{printable(found.name)} {found.dtype} {found.shape}"
        raise ModelError(f"tensor {what}: {name} needs floats of {(n_expert * n_in, n_out)}")
    return ExpertColumns(name, shape, tuple(parts), 0, 1)


def half_columns(
    name: str, shape: tuple[int, ...], parts: Sequence[StoredTensor], part: int
) -> ExpertColumns:
    """Return the experts ``name`` over half the columns of a transposed stack; ModelError."""
    (n_expert, n_out, n_in), found = shape, parts[0]
    if found.dtype not in FLOATS or found.shape != (n_expert, n_in, 2 * n_out):
        what = f"{printable(found.name)} {found.dtype} {found.shape}"
        raise ModelError(f"tensor {what}: {name} needs floats of {(n_expert, n_in, 2 * n_out)}")
    return ExpertColumns(name, shape, tuple(parts), part * n_out, 1)


def transposed(name: str, shape: tuple[int, ...], parts: Sequence[StoredTensor]) -> Transposed:
    """Return the tensor ``name`` over its transpose; ModelError where that is none of floats."""
    found = parts[0]
    if found.dtype not in FLOATS or found.shape != shape[::-1]:
        what = f"{printable(found.name)} {found.dtype} {found.shape}"
        raise ModelError(f"tensor {what}: {name} needs floats of shape {shape[::-1]}")
    return Transposed(name, shape, tuple(parts))


def first_beyond(name: str, shape: tuple[int, ...], parts: Sequence[StoredTensor]) -> FirstBeyond:
    """Return the table ``name`` over one of as many rows or fewer; ModelError for others."""
    found = parts[0]
    fits = len(found.shape) == 2 and found.shape[1] == shape[1] and 0 < found.shape[0] <= shape[0]
    if found.dtype not in FLOATS or not fits:
        what = f"{printable(found.name)} {found.dtype} {found.shape}"
        raise ModelError(f"tensor {what}: {name} needs floats of at most {shape}")
    return FirstBeyond(name, shape, tuple(parts))


def unless_zero(name: str, shape: tuple[int, ...], parts: Sequence[StoredTensor]) -> Vector | None:
    """Return the vector ``name``, None where it changes nothing; ModelError for another shape."""
    found = parts[0]
    if found.dtype not in FLOATS or found.shape != shape:
        what = f"{printable(found.name)} {found.dtype} {found.shape}"
        raise ModelError(f"tensor {what}: {name} needs floats of {shape}")
    return Vector(name, shape, tuple(parts)) if found.read(slice(0, 1)).any() else None

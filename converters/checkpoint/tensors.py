"""Where weights come from: an HF folder or a GGUF file as the same list of named tensors.

A source gives tensors under their GGUF names, readable as float32 in slabs of rows; it does not
know which types they will get or who writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Protocol

import numpy as np

from ggq.converters.checkpoint import refusals
from ggq.converters.checkpoint.folder import Checkpoint
from ggq.converters.checkpoint.transforms import TRANSFORMS
from ggq.converters.formats.base import Decoded, TensorLike
from ggq.converters.safetensors import FLOATS
from ggq.errors import FormatError, ModelError, printable
from ggq.gguf import GGUFFile, spec
from ggq.models.base import Architecture
from ggq.models.hparams import HParams
from ggq.models.table import Tensor

__all__ = [
    "GGUFTensor",
    "HFTensor",
    "MadeTensor",
    "SourceTensor",
    "gguf_tensors",
    "hf_tensors",
    "in_own_blocks",
    "own_blocks",
]


class SourceTensor(Protocol):
    """One tensor to convert: GGUF name, shape (row length last), the type it has now.

    Rows are those of the flattened shape; ``part_rows`` divides them into experts.
    """

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def type_name(self) -> str: ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows [start, stop) as float32 (rows, width)."""

    def raw(self, start: int, stop: int) -> np.ndarray | None:
        """Return the rows' bytes in the present type, uint8 (rows, bytes); None: not so stored."""


@dataclass(frozen=True)
class HFTensor:
    """A table row bound to checkpoint tensors: permuted, shifted, stacked while it is read."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    parts: tuple[TensorLike, ...]
    rows: Callable[[np.ndarray], np.ndarray] | None
    values: Callable[[np.ndarray], np.ndarray] | None
    columns: Callable[[np.ndarray], np.ndarray] | None = None
    factor: np.ndarray | None = None  # of all values, (), or of each row, (n_rows, 1)

    def read(self, start: int, stop: int) -> np.ndarray:
        if len(self.shape) == 1:
            x = self.parts[0].read(slice(0, 1))
            x = x if self.rows is None else x[:, self.rows(np.arange(self.shape[0]))]
        elif len(self.parts[0].shape) == 1:  # a vector that the file holds as a column
            x = self.parts[0].read(slice(0, 1)).reshape(self.shape)[start:stop]
        else:
            part, rows = self._stored_rows(start, stop)
            x = part.read(rows)
        x = x if self.columns is None else x[:, self.columns(np.arange(self.shape[-1]))]
        x = x if self.values is None else self.values(x)
        if self.factor is None:
            return x
        return x * (self.factor[start:stop] if self.factor.ndim else self.factor)

    def raw(self, start: int, stop: int) -> np.ndarray | None:
        if self.type_name in FLOATS:
            return None
        part, rows = self._stored_rows(start, stop)
        assert isinstance(part, Decoded), "only decoded weights have a block type"
        return part.blocks(self.type_name, rows)

    def _stored_rows(self, start: int, stop: int) -> tuple[TensorLike, slice | np.ndarray]:
        """Return the checkpoint's tensor and the rows of it that are ours from start to stop."""
        per_part = prod(self.shape[:-1]) // len(self.parts)
        part, first = divmod(start, per_part)
        last = first + stop - start
        assert last <= per_part, "a slab lies within one part"
        rows = slice(first, last) if self.rows is None else self.rows(np.arange(first, last))
        return self.parts[part], rows

    def fits(self, type_name: str) -> bool:
        """Tell whether blocks of that type hold the checkpoint's own codes, unchanged."""
        changed = self.values or self.columns or self.factor is not None
        plain = not changed and len(self.shape) > 1
        return plain and all(isinstance(p, Decoded) and p.fits(type_name) for p in self.parts)

    def rounds(self, type_name: str) -> bool:
        """Tell whether such blocks round a scale to half precision."""
        return any(isinstance(p, Decoded) and p.rounds(type_name) for p in self.parts)


@dataclass(frozen=True)
class MadeTensor:
    """A small tensor made from the config, held whole."""

    name: str
    data: np.ndarray
    type_name: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.data.reshape(-1, self.data.shape[-1])[start:stop]

    def raw(self, start: int, stop: int) -> np.ndarray | None:
        return None


@dataclass(frozen=True)
class GGUFTensor:
    """A tensor of a GGUF file, dequantized as it is read."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    type_id: int
    file: GGUFFile

    def read(self, start: int, stop: int) -> np.ndarray:
        from ggq import quants

        return quants.by_id(self.type_id).dequantize(self.file.data(self.name)[start:stop])

    def raw(self, start: int, stop: int) -> np.ndarray | None:
        return self.file.data(self.name)[start:stop]


def gguf_tensors(file: GGUFFile) -> list[SourceTensor]:
    """Return the tensors of a GGUF file."""
    return [
        GGUFTensor(
            t.name, tuple(int(n) for n in t.shape), spec.type_name(t.type_id), t.type_id, file
        )
        for t in file.tensors.values()
    ]


def hf_tensors(
    checkpoint: Checkpoint, arch: Architecture, hp: HParams
) -> tuple[list[SourceTensor], list[str]]:
    """Bind the architecture's table to the checkpoint; return (tensors, names left out on purpose).

    ModelError names a tensor that is missing, has another shape, or that the table does not know.
    """
    checkpoint.refuse_absent(lambda name: arch.ignores(name, hp))
    config = arch.config(checkpoint.config)
    left = dict(checkpoint.tensors)
    made: list[SourceTensor] = []
    taken: set[str] = set()
    for name, row, layer in arch.rows(hp):
        transform = TRANSFORMS[row.transform]
        if transform.make:
            data = transform.make(config, hp)
            if data is not None:
                made.append(MadeTensor(name, data))
            continue
        found, how = _stored(checkpoint, arch, row, hp, layer)
        if all(f is None for f in found) and row.optional:
            continue
        if None in found:
            missing = arch.sources(row, hp, layer)[found.index(None)]
            why = refusals.wrapper(missing, checkpoint.tensors)
            raise ModelError(why or f"the checkpoint has no tensor {missing} ({name})")
        parts = [f for f in found if f is not None]
        shape, transform = arch.shape(how, hp, layer), TRANSFORMS[how.transform]
        if transform.bind is not None:
            if (bound := transform.bind(name, shape, parts)) is not None:
                made.append(bound)
        else:
            factor = row.factor and np.asarray(row.factor(config), np.float32)
            made.append(_bind(name, how, shape, layer or 0, hp, parts, factor))
        taken.update(f.name for f in parts)
    if used := [n for n in checkpoint.beside if n in taken]:
        what = (
            f"{len(used)} tensors, such as {printable(used[0])}, are of files that no index lists"
        )
        checkpoint.warnings.append(what)
    unknown = [n for n in left if n not in taken]
    skipped = [n for n in unknown if arch.ignores(n, hp)]
    if len(skipped) < len(unknown):
        name = next(n for n in unknown if not arch.ignores(n, hp))
        what = f"tensor {printable(name)} of the checkpoint is not one that {arch.name} has"
        why = refusals.foreign_tensor(name)
        raise ModelError(f"{what}; {why}" if why else what)
    return made, skipped


def _stored(
    checkpoint: Checkpoint, arch: Architecture, row: Tensor, hp: HParams, layer: int | None
) -> tuple[list[TensorLike | None], Tensor]:
    """Return a row's tensors in the checkpoint, None where missing, and the row that takes them.

    Where some are missing, the other forms that the row may be stored in are looked for.
    """
    names, stored_as = arch.sources(row, hp, layer), TRANSFORMS[row.transform].stored_as
    forms = [(names, row)]
    if stored_as:
        forms.append(([m for n in names for m in stored_as(n)], row))
    if row.fused:
        name = arch.placed(row.fused[0].format(i=layer), hp, layer)
        forms.append(([name], replace(row, transform=row.fused[1])))
    found = [([_find(checkpoint, arch, n) for n in ns], how) for ns, how in forms]
    return next((form for form in found if None not in form[0]), found[0])


def in_own_blocks(tensor: SourceTensor, type_name: str) -> SourceTensor:
    """Return the tensor as one of that type where the checkpoint's codes fit its blocks."""
    if isinstance(tensor, HFTensor) and tensor.type_name != type_name and tensor.fits(type_name):
        return replace(tensor, type_name=type_name)
    return tensor


def own_blocks(tensor: SourceTensor) -> list[str]:
    """Return the types whose blocks hold the checkpoint's own codes, the smallest first."""
    from ggq import quants

    if not isinstance(tensor, HFTensor) or not isinstance(tensor.parts[0], Decoded):
        return []
    kinds = sorted(quants.all(), key=lambda q: q.bits_per_weight)
    return [q.name for q in kinds if tensor.fits(q.name)]


def _find(checkpoint: Checkpoint, arch: Architecture, name: str) -> TensorLike | None:
    names = [name, name.removeprefix(arch.hf_base)]
    names += [other] if (other := _alias(name, arch.aliases)) != name else []
    candidates = [prefix + n for prefix in arch.hf_prefixes for n in names]
    for held in (checkpoint.tensors, checkpoint.beside):
        if found := next((held[c] for c in candidates if c in held), None):
            return found
    return None


def _alias(name: str, aliases: Mapping[str, str]) -> str:
    """Return ``name`` with parts of it replaced, one after the other."""
    for usual, other in aliases.items():
        name = name.replace(usual, other)
    return name


def _bind(
    name: str,
    row: Tensor,
    shape: tuple[int, ...],
    layer: int,
    hp: HParams,
    parts: list[TensorLike],
    factor: np.ndarray | None,
) -> HFTensor:
    transform = TRANSFORMS[row.transform]
    total, want = sum(prod(p.shape) for p in parts), shape
    if transform.whole:
        want = (transform.whole(hp, layer), *shape[1:])
    for part in parts:
        if part.dtype not in FLOATS and not isinstance(part, Decoded):
            raise FormatError(f"tensor {printable(part.name)} holds {part.dtype}, not floats")
        rows_fit = len(part.shape) == 1 or (part.shape and part.shape[-1] == want[-1])
        if not rows_fit or total != prod(want):
            raise ModelError(
                f"tensor {printable(part.name)} has shape {part.shape}, {name} needs {want}"
            )
    n = prod(shape[:-1]) // len(parts) if len(shape) > 1 else shape[0]
    rows = transform.rows(hp, layer, n) if transform.rows else None
    type_name = "F32" if row.f32 or len(shape) == 1 else parts[0].dtype
    if type_name == "F64" or any(p.dtype != type_name for p in parts):
        type_name = "F32"
    columns = transform.columns(hp) if transform.columns else None
    factor = factor[:, None] if factor is not None and factor.ndim else factor
    made = HFTensor(name, shape, type_name, tuple(parts), rows, transform.values, columns, factor)
    return made if type_name in FLOATS or made.fits(type_name) else replace(made, type_name="F32")

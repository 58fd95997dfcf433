"""What tensors by GGUF names are in a checkpoint: each HF tensor and how its rows are read.

The architectures' tables read backwards, in slabs of rows. It knows no config and no files of
weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from math import prod
from typing import Any, Protocol

import numpy as np

from ggq.converters.checkpoint.joined import Held, by_rows
from ggq.converters.checkpoint.transforms import TRANSFORMS
from ggq.gguf import GGUFFile
from ggq.models.base import Architecture
from ggq.models.hparams import HParams
from ggq.models.table import Tensor

__all__ = ["FileTensors", "Piece", "Tensors", "pieces"]


class Tensors(Protocol):
    """Where the rows come from: a file, or the tensors of a conversion."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, row length last."""

    def rows(self, name: str, rows: Any) -> np.ndarray:
        """Return rows, a slice or their numbers, of the flattened tensor: (rows, width)."""


class FileTensors:
    """The tensors of a GGUF file, dequantized."""

    def __init__(self, file: GGUFFile) -> None:
        self.file = file

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(n) for n in self.file.tensors[name].shape)

    def rows(self, name: str, rows: Any) -> np.ndarray:
        from ggq import quants

        kind = quants.by_id(self.file.tensors[name].type_id)
        return kind.dequantize(np.ascontiguousarray(self.file.data(name)[rows]))


class Piece:
    """One HF tensor and how to read its rows."""

    def __init__(
        self, name: str, shape: tuple[int, ...], read: Callable[[int, int], np.ndarray], n_rows: int
    ) -> None:
        self.name, self.shape, self.read, self.n_rows = name, shape, read, n_rows

    def slabs(self, elements: int) -> Iterator[np.ndarray]:
        """Yield the rows as float32, about ``elements`` values at a time."""
        step = max(1, elements // self.shape[-1])
        for start in range(0, self.n_rows, step):
            yield self.read(start, min(start + step, self.n_rows))


def pieces(
    source: Tensors, arch: Architecture, hp: HParams, parts: list[tuple[str, Tensor, int | None]]
) -> Iterator[Piece]:
    """Yield the HF tensors of ``parts``; those that hold several of them come last."""
    joined: dict[str, list[tuple[str, Tensor, int | None]]] = {}
    taken = Counter(arch.sources(row, hp, i)[0] for _, row, i in parts if row.hf)
    for name, row, layer in parts:
        hf_name = arch.sources(row, hp, layer)[0] if row.hf else ""
        transform = TRANSFORMS[row.transform]
        if transform.join or (transform.whole and taken[hf_name] > 1):
            joined.setdefault(hf_name, []).append((name, row, layer))
        elif row.hf:
            yield from _pieces(source, arch, hp, name, row, layer)
    for hf_name, of in joined.items():
        yield _joined(source, hp, hf_name, of)


def _joined(
    source: Tensors, hp: HParams, hf_name: str, of: list[tuple[str, Tensor, int | None]]
) -> Piece:
    """Return the HF tensor that holds several of these, in the order of the tables."""
    held = [_held(source, name) for name, _, _ in of]
    transforms = [TRANSFORMS[row.transform] for _, row, _ in of]
    join = transforms[0].join
    if join is not None:
        made = join(held)
    else:
        maps = []
        for transform, one, (_, _, layer) in zip(transforms, held, of, strict=True):
            assert transform.rows is not None, "what takes a part says which rows"
            maps.append(transform.rows(hp, layer or 0, prod(one.shape[:-1])))
        made = by_rows(held, maps)
    return Piece(hf_name, made.shape, made.read, prod(made.shape[:-1]))


def _held(source: Tensors, name: str) -> Held:
    return Held(source.shape(name), lambda rows: source.rows(name, rows))


def _pieces(
    source: Tensors, arch: Architecture, hp: HParams, name: str, row: Tensor, layer: int | None
) -> Iterator[Piece]:
    """Yield the HF tensors of one tensor: itself, or one per expert."""
    shape, transform = source.shape(name), TRANSFORMS[row.transform]
    hf_names = arch.sources(row, hp, layer)
    shape = shape[1:] if len(hf_names) > 1 and len(shape) > 2 else shape
    vector, n_rows = len(shape) == 1, prod(shape[:-1])
    n = shape[0] if vector else n_rows
    undo = transform.undo_rows(hp, layer or 0, n) if transform.undo_rows else None
    columns = transform.undo_columns(hp)(np.arange(shape[-1])) if transform.undo_columns else None
    if transform.transposes:
        whole = source.rows(name, slice(None)).T
        yield Piece(hf_names[0], whole.shape, lambda start, stop: whole[start:stop], len(whole))
        return

    for part, hf_name in enumerate(hf_names):

        def read(start: int, stop: int, first: int = part * n_rows) -> np.ndarray:
            if vector or undo is None:
                rows: Any = slice(first + start, first + stop)
            else:
                rows = first + undo(np.arange(start, stop))
            x = source.rows(name, rows)
            x = x[:, undo(np.arange(n))] if vector and undo is not None else x
            x = x if columns is None else x[:, columns]
            return transform.undo_values(x) if transform.undo_values else x

        stored = tuple(hp.dim(d, layer) for d in row.hf_shape) if row.hf_shape else shape
        yield Piece(hf_name, stored, read, n_rows)

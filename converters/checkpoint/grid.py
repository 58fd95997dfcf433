"""Plain weights on a block type's grid, as quantization-aware training leaves them.

A few rows of each matrix tell; whether all do is looked at when that type is asked for. It knows
no architecture and no names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from ggq.converters.formats.base import Decoded, Rows, TensorLike
from ggq.converters.safetensors import FLOATS
from ggq.errors import option
from ggq.quants.mixtures import FILE_TYPES

__all__ = ["GRIDS", "OnGrid", "notes", "on_grid"]

# Q4_0: a code's worth is the signed extremum of 32 weights / -8 (Gemma's); MXFP4: a power of two.
GRIDS = ("Q4_0", "MXFP4")
BLOCK = 32
PROBES, PROBED_ROWS = 8, 8  # matrices of a checkpoint, rows of each, before more is read
CHECKED_ROWS = 1024  # at a time, when all rows are
MANY = 4  # magnitudes in a block: fewer (ternary weights, say) lie on many grids
MOST = 16  # values in a block: codes of 4 bits have no more


class OnGrid(Decoded):
    """A matrix of floats of which some rows lie on the grid of the type ``grid``."""

    def __init__(self, whole: Any, grid: str) -> None:
        super().__init__(whole.name, whole.shape)
        self.dtype, self.grid, self._whole = whole.dtype, grid, whole

    def values(self, rows: Rows) -> np.ndarray:
        found: np.ndarray = self._whole.read(rows)
        return found

    def fits(self, type_name: str) -> bool:
        return type_name == self.grid and self._is_lossless

    @cached_property
    def _is_lossless(self) -> bool:
        n = self.shape[0]
        chunks = (slice(i, min(i + CHECKED_ROWS, n)) for i in range(0, n, CHECKED_ROWS))
        return all(_lies(self._whole, self.grid, rows) for rows in chunks)

    def blocks(self, type_name: str, rows: Rows) -> np.ndarray:
        return _blocks(type_name, self.values(rows))


def _blocks(grid: str, x: np.ndarray) -> np.ndarray:
    """Return the nearest blocks by the extremum of each, which are those of weights on the grid."""
    from ggq import quants

    found: np.ndarray = quants.get(grid).quantize(np.ascontiguousarray(x)).view(np.uint8)
    return found


def _lies(tensor: Any, grid: str, rows: Rows) -> bool:
    """Tell whether rows come back from the grid's blocks as they are, rounded to their own type."""
    from ggq import quants

    x = tensor.read(rows)
    if not np.isfinite(x).all():
        return False
    again = quants.get(grid).dequantize(_blocks(grid, x))
    own = quants.get(tensor.dtype) if tensor.dtype in ("F16", "BF16") else None
    if own is not None:
        again = own.dequantize(own.quantize(again))
    return bool((again == x).all())


def _could_tell(x: np.ndarray) -> bool:
    """Tell whether no block has more values than a grid, and some enough to tell one from others.

    That most weights have more is seen without a quantizer, and so without a compiler.
    """
    few = _distinct(x) <= MOST
    return bool(few.all() and (_distinct(np.abs(x)) > MANY).any())


def _distinct(x: np.ndarray) -> np.ndarray:
    """Return how many values each block of a row has."""
    found: np.ndarray = (np.diff(np.sort(x.reshape(-1, BLOCK), axis=1), axis=1) > 0).sum(axis=1) + 1
    return found


def on_grid(tensors: Mapping[str, TensorLike]) -> dict[str, TensorLike]:
    """Return the tensors, those that lie on a grid as `OnGrid`."""
    fit = [name for name, tensor in tensors.items() if _could_lie(tensor)]
    probes = fit[:: max(1, len(fit) // PROBES)]
    grid = next((g for g in _grids_of(tensors, probes)), None)
    if grid is None:
        return dict(tensors)
    lying = {name: OnGrid(tensors[name], grid) for name in fit if _sampled(tensors[name], grid)}
    return {**tensors, **lying}


def _could_lie(tensor: Any) -> bool:
    matrix = len(tensor.shape) == 2 and tensor.shape[1] % BLOCK == 0 and all(tensor.shape)
    return matrix and tensor.dtype in FLOATS and not isinstance(tensor, Decoded)


def _grids_of(tensors: Mapping[str, TensorLike], names: list[str]) -> Iterator[str]:
    for name in names:
        yield from (grid for grid in GRIDS if _sampled(tensors[name], grid))


def _sampled(tensor: Any, grid: str) -> bool:
    """Tell whether some rows, evenly spread, lie on the grid and could have lain elsewhere."""
    rows = np.linspace(0, tensor.shape[0] - 1, min(PROBED_ROWS, tensor.shape[0])).astype(np.int64)
    return _could_tell(tensor.read(rows)) and _lies(tensor, grid, rows)


def notes(tensors: Mapping[str, Any], types: Mapping[str, str], file_type: str) -> list[str]:
    """Return a line on tensors whose sources lie on a grid: whether the file keeps them.

    ``types``: the type planned for each; ``file_type``: the file's.
    """
    found = {n: p.grid for n, t in tensors.items() for p in getattr(t, "parts", ()) if _on(p)}
    if not found:
        return []
    grid = next(iter(found.values()))
    what = f"{len(found)} matrices lie on the grid of {grid}, as training for it leaves them"
    kept = [name for name in found if tensors[name].type_name == types[name] == grid]
    if kept:
        return [f"{what}: {len(kept)} are written without loss"]
    wider = "F32", "BF16", "F16"
    if file_type in wider:
        return []
    how = (
        f"{option('--type')} {grid}" if grid in FILE_TYPES else f"{option('--tensor-type')} {grid}"
    )
    return [f"{what}: {how} writes them without loss, {file_type} does not"]


def _on(part: object) -> bool:
    return isinstance(part, OnGrid)

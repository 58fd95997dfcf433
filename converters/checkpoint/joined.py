"""Tensors of a checkpoint that hold several of a file's, put together again while they are read.

The counterpart of `fused.py` and of transforms that take rows out of one weight of all. It knows
layouts of values, no names and no architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ggq.models.transform import RowMap

__all__ = ["Held", "Joined", "by_rows", "latent", "side_by_side", "stacked", "turned"]


@dataclass(frozen=True)
class Held:
    """A tensor of a file: its shape, ``read(rows)`` of the flattened rows as float32."""

    shape: tuple[int, ...]
    read: Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Joined:
    """A tensor of a checkpoint: its shape, ``read(start, stop)`` of the flattened rows."""

    shape: tuple[int, ...]
    read: Callable[[int, int], np.ndarray]


def stacked(held: Sequence[Held]) -> Joined:
    """Return one with the rows of each, expert by expert one after the other."""
    *n_expert, n_out, n_in = held[0].shape

    def read(start: int, stop: int) -> np.ndarray:
        expert, within = np.divmod(np.arange(start, stop), n_out * len(held))
        part, row = np.divmod(within, n_out)
        x = np.empty((stop - start, n_in), np.float32)
        for i, one in enumerate(held):
            mine = part == i
            x[mine] = one.read((expert * n_out + row)[mine])
        return x

    return Joined((*n_expert, n_out * len(held), n_in), read)


def turned(held: Sequence[Held]) -> Joined:
    """Return gpt-oss's experts, transposed, or biases, the columns of each in turns."""
    step = len(held)
    if len(held[0].shape) == 2:
        n_expert, n_out = held[0].shape

        def biases(start: int, stop: int) -> np.ndarray:
            parts = [one.read(slice(start, stop)) for one in held]
            return np.stack(parts, axis=-1).reshape(stop - start, -1)

        return Joined((n_expert, n_out * step), biases)
    n_expert, n_out, n_in = held[0].shape

    def expert(number: int) -> np.ndarray:
        rows = slice(number * n_out, (number + 1) * n_out)
        return np.stack([one.read(rows).T for one in held], axis=-1).reshape(n_in, -1)

    return Joined((n_expert, n_in, n_out * step), _blocks(expert, n_in))


def side_by_side(held: Sequence[Held]) -> Joined:
    """Return transposed experts, the columns of each behind those of the one before."""
    n_expert, n_out, n_in = held[0].shape

    def expert(number: int) -> np.ndarray:
        rows = slice(number * n_out, (number + 1) * n_out)
        return np.concatenate([one.read(rows).T for one in held], axis=1)

    return Joined((n_expert, n_in, n_out * len(held)), _blocks(expert, n_in))


def latent(held: Sequence[Held]) -> Joined:
    """Return a latent attention's weight: for each head its keys, transposed, and its values."""
    keys, values = held
    (n_head, rank, n_keys), n_values = keys.shape, values.shape[1]

    def head(number: int) -> np.ndarray:
        above = keys.read(slice(number * rank, (number + 1) * rank)).T
        below = values.read(slice(number * n_values, (number + 1) * n_values))
        return np.concatenate([above, below])

    return Joined((n_head * (n_keys + n_values), rank), _blocks(head, n_keys + n_values))


def by_rows(held: Sequence[Held], maps: Sequence[RowMap]) -> Joined:
    """Return the weight that each of ``held`` took rows of: ``maps`` say which."""
    counts = [prod(one.shape[:-1]) for one in held]
    part, row = np.full(sum(counts), -1), np.zeros(sum(counts), np.int64)
    for i, (count, source) in enumerate(zip(counts, maps, strict=True)):
        at = source(np.arange(count))
        part[at], row[at] = i, np.arange(count)
    assert (part >= 0).all(), "each row is of one of them"

    def read(start: int, stop: int) -> np.ndarray:
        x = np.empty((stop - start, held[0].shape[-1]), np.float32)
        for i, one in enumerate(held):
            mine = part[start:stop] == i
            x[mine] = one.read(row[start:stop][mine])
        return x

    return Joined((len(part), held[0].shape[-1]), read)


def _blocks(block: Callable[[int], np.ndarray], height: int) -> Callable[[int, int], np.ndarray]:
    """Return what reads rows of matrices that can be made only whole, the last one kept."""
    kept = lru_cache(maxsize=1)(block)

    def read(start: int, stop: int) -> np.ndarray:
        parts = []
        for number in range(start // height, (stop - 1) // height + 1):
            first = number * height
            parts.append(kept(number)[max(start - first, 0) : stop - first])
        return np.concatenate(parts)

    return read

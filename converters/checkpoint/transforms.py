"""How HF tensors become GGUF tensors, by the names that the architectures' tables use.

Each transform works on any slab of whole rows, so that no tensor is ever held whole. It knows
hyper-parameters, but no file and no block type.
"""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np

from ggq.converters.checkpoint import fused, heads, joined, patches, rotations
from ggq.models import layers
from ggq.models.transform import Transform

__all__ = ["TRANSFORMS"]


def _unit_rows(x: np.ndarray) -> np.ndarray:
    """Return rows of length 1, as Baichuan 2 makes those of its head before each use."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.float32(1e-12))


def _stack(part: int, n_parts: int) -> Transform:
    """Return the binding of experts stacked in one tensor, with ``n_parts`` matrices in each."""
    return Transform(
        bind=lambda name, shape, parts: fused.stack(name, shape, parts, part, n_parts),
        join=joined.stacked if n_parts > 1 else None,
    )


def _columns(part: int) -> Transform:
    """Return the binding of experts that are one half of a stack's columns, transposed."""
    return Transform(
        bind=lambda name, shape, parts: fused.half_columns(name, shape, parts, part),
        join=joined.side_by_side,
    )


def _experts(first: int, step: int) -> Transform:
    """Return the binding of gpt-oss's experts: transposed floats, or blocks and scales."""
    return Transform(
        bind=lambda name, shape, parts: fused.experts(name, shape, parts, first, step),
        stored_as=lambda name: (f"{name}_blocks", f"{name}_scales"),
        join=joined.turned,
    )


def _of_layers() -> dict[str, Transform]:
    """Return the transforms that kinds of layer parts bring along."""
    found: dict[str, Transform] = {}
    for module in pkgutil.iter_modules(layers.__path__):
        kind = importlib.import_module(f"{layers.__name__}.{module.name}")
        found |= getattr(kind, "TRANSFORMS", {})
    return found


TRANSFORMS: dict[str, Transform] = {
    **_of_layers(),
    "copy": Transform(),
    **heads.TRANSFORMS,
    "first_beyond": Transform(bind=fused.first_beyond),
    "conv1d": Transform(bind=fused.transposed, transposes=True),
    "plus_one": Transform(
        values=lambda x: x + np.float32(1), undo_values=lambda x: x - np.float32(1)
    ),
    "answers": Transform(
        rows=lambda hp, i, n: lambda row: np.array(hp.readout.answers)[row],
        whole=lambda hp, i: hp.n_vocab,
    ),
    "from_position": Transform(
        rows=lambda hp, i, n: lambda row: row + hp.first_position,
        whole=lambda hp, i: (hp.first_position or 0) + hp.n_ctx_train,
    ),
    "unit_rows": Transform(values=_unit_rows),
    "stack": _stack(0, 1),
    "first_half": _stack(0, 2),
    "second_half": _stack(1, 2),
    "unless_zero": Transform(bind=fused.unless_zero),
    "expert_columns": Transform(bind=fused.flat_columns),
    "latent_keys": Transform(bind=fused.latent_keys, join=joined.latent),
    "latent_values": Transform(bind=fused.latent_values, join=joined.latent),
    "transposed": _experts(0, 1),
    "left_columns": _columns(0),
    "right_columns": _columns(1),
    "even_columns": _experts(0, 2),
    "odd_columns": _experts(1, 2),
    **rotations.TRANSFORMS,
    **patches.TRANSFORMS,
}

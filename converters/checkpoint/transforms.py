"""How HF tensors become GGUF tensors, by the names that the architectures' tables use.

Each transform works on any slab of whole rows, so that no tensor is ever held whole. It knows
hyper-parameters, but no file and no block type.
"""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np

from ggq.converters.checkpoint import fused, rotations
from ggq.models import layers
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention
from ggq.models.transform import RowMap, Transform

__all__ = ["TRANSFORMS"]


def _to_pairs(n_head: int, n_rows: int) -> RowMap:
    """Map rows of adjacent rope pairs to HF's halves: out[h, i, s] = in[h, s, i]."""
    half = n_rows // n_head // 2

    def source(row: np.ndarray) -> np.ndarray:
        head, within = np.divmod(row, 2 * half)
        pair, side = np.divmod(within, 2)
        return head * 2 * half + side * half + pair

    return source


def _to_halves(n_head: int, n_rows: int) -> RowMap:
    """Invert `_to_pairs`."""
    half = n_rows // n_head // 2

    def source(row: np.ndarray) -> np.ndarray:
        head, within = np.divmod(row, 2 * half)
        side, pair = np.divmod(within, half)
        return head * 2 * half + 2 * pair + side

    return source


def _heads(hp: HParams, layer: int, name: str) -> int:
    """Return how many heads ("q" or "k") layer ``layer`` has."""
    attention = hp.layers[layer].find(Attention)
    assert attention is not None
    return attention.n_head if name == "q" else attention.n_head_kv


def _permuted(name: str) -> Transform:
    return Transform(
        rows=lambda hp, i, n: _to_pairs(_heads(hp, i, name), n),
        undo_rows=lambda hp, i, n: _to_halves(_heads(hp, i, name), n),
    )


def _each_head(n_head: int, n_rows: int) -> RowMap:
    """Map rows of q, k and v to HF's heads of all three: out[part, h, i] = in[h, part, i]."""
    width = n_rows // n_head // 3

    def source(row: np.ndarray) -> np.ndarray:
        part, within = np.divmod(row, n_head * width)
        head, i = np.divmod(within, width)
        return (head * 3 + part) * width + i

    return source


def _stack(part: int, n_parts: int) -> Transform:
    """Return the binding of experts stacked in one tensor, with ``n_parts`` matrices in each."""
    return Transform(bind=lambda name, shape, parts: fused.stack(name, shape, parts, part, n_parts))


def _experts(first: int, step: int) -> Transform:
    """Return the binding of gpt-oss's experts: transposed floats, or blocks and scales."""
    return Transform(
        bind=lambda name, shape, parts: fused.experts(name, shape, parts, first, step),
        stored_as=lambda name: (f"{name}_blocks", f"{name}_scales"),
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
    "permute_q": _permuted("q"),
    "permute_k": _permuted("k"),
    "each_head": Transform(rows=lambda hp, i, n: _each_head(_heads(hp, i, "q"), n)),
    "plus_one": Transform(
        values=lambda x: x + np.float32(1), undo_values=lambda x: x - np.float32(1)
    ),
    "stack": _stack(0, 1),
    "first_half": _stack(0, 2),
    "second_half": _stack(1, 2),
    "latent_keys": Transform(bind=fused.latent_keys),
    "latent_values": Transform(bind=fused.latent_values),
    "transposed": _experts(0, 1),
    "even_columns": _experts(0, 2),
    "odd_columns": _experts(1, 2),
    **rotations.TRANSFORMS,
}

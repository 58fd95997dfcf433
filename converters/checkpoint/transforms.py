"""How HF tensors become GGUF tensors, by the names that the architectures' tables use.

Each transform works on any slab of whole rows, so that no tensor is ever held whole. It knows
hyper-parameters, but no file and no block type.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from ggq.converters.checkpoint import fused
from ggq.errors import ModelError
from ggq.models import layers
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention
from ggq.models.transform import RowMap, Transform

__all__ = ["TRANSFORMS", "llama3_factors"]


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


def llama3_factors(config: Mapping[str, Any], hp: HParams) -> np.ndarray | None:
    """Return Llama 3.1's frequency divisors, float32 (rope_dim / 2,); None for another scaling.

    Method: transformers' _compute_llama3_parameters, rounded as convert_hf_to_gguf.py rounds.
    """
    rope = config.get("rope_parameters") or {}
    if str(rope.get("rope_type", "")).lower() != "llama3":
        return None
    dim, base = 2 * hp.dim("rope_half"), np.float32(rope.get("rope_theta", 10000.0))
    factor = rope.get("factor", 8.0)
    low, high = rope.get("low_freq_factor", 1.0), rope.get("high_freq_factor", 4.0)
    context = rope.get("original_max_position_embeddings", 8192)
    if low == high:
        raise ModelError("config.json: rope low_freq_factor equals high_freq_factor")
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    powers = np.power(base.astype(np.float64), exponents.astype(np.float64))
    freqs = np.float32(1.0) / powers.astype(np.float32)
    return np.array([_llama3_factor(f, factor, low, high, context) for f in freqs], np.float32)


def _llama3_factor(freq: np.float32, factor: float, low: float, high: float, context: int) -> Any:
    """Return one divisor; quotients are products with reciprocals because torch's are."""
    one = np.float32(1)
    wavelength = one / freq * np.float32(2 * math.pi)
    if wavelength < context / high:
        return one
    if wavelength > context / low:
        return np.float32(factor)
    smooth = (one / wavelength * np.float32(context) - np.float32(low)) / np.float32(high - low)
    return one / ((one - smooth) / np.float32(factor) + smooth)


def _proportional(config: Mapping[str, Any], hp: HParams) -> np.ndarray:
    """Return divisors that leave all but the first pairs of wide heads where they are."""
    share = config["rope_parameters"].get("partial_rotary_factor", 1.0)
    n_pairs = hp.dim("rope_half")
    return np.where(np.arange(n_pairs) < int(n_pairs * share), 1.0, 1e30).astype(np.float32)


def _longrope(config: Mapping[str, Any], hp: HParams, name: str) -> np.ndarray | None:
    """Return the divisors of LongRoPE that the config lists, float32 (rope_dim / 2,)."""
    listed = (config.get("rope_parameters") or {}).get(name)
    if not listed:
        return None
    if not isinstance(listed, list) or len(listed) != hp.dim("rope_half"):
        raise ModelError(f"config.json: {name} is not a list of {hp.dim('rope_half')} numbers")
    try:
        return np.array(listed, np.float32)
    except (TypeError, ValueError):
        raise ModelError(f"config.json: {name} holds other things than numbers") from None


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


def _from_position(hp: HParams, n_rows: int) -> RowMap:
    """Map the positions of a text to the rows of a table that begins before them; ModelError."""
    first = hp.first_position
    if n_rows != first + hp.n_ctx_train:
        what = f"{first + hp.n_ctx_train} positions, the checkpoint's table {n_rows}"
        raise ModelError(f"config.json: max_position_embeddings and pad_token_id make {what}")
    return lambda row: row + first


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
    "answers": Transform(rows=lambda hp, i, n: lambda row: np.array(hp.answers)[row], picks=True),
    "from_position": Transform(rows=lambda hp, i, n: _from_position(hp, n), picks=True),
    "stack": _stack(0, 1),
    "first_half": _stack(0, 2),
    "second_half": _stack(1, 2),
    "latent_keys": Transform(bind=fused.latent_keys),
    "latent_values": Transform(bind=fused.latent_values),
    "transposed": _experts(0, 1),
    "even_columns": _experts(0, 2),
    "odd_columns": _experts(1, 2),
    "llama3_factors": Transform(make=llama3_factors),
    "proportional_factors": Transform(make=_proportional),
    "longrope_long": Transform(make=lambda config, hp: _longrope(config, hp, "long_factor")),
    "longrope_short": Transform(make=lambda config, hp: _longrope(config, hp, "short_factor")),
}

"""Rotations that a file holds as divisors of its frequencies, made from config.json.

They know the settings of a rotation and how wide it is, and no file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ggq.errors import ModelError
from ggq.models.hparams import HParams
from ggq.models.layers.rope import YARN_AS_FACTORS, Rope, yarn_factor
from ggq.models.transform import Transform
from ggq.runtime.ops.rope import frequencies

__all__ = ["TRANSFORMS", "llama3_factors"]

ORIGINAL = "original_max_position_embeddings"


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


def _yarn(config: Mapping[str, Any], hp: HParams) -> np.ndarray:
    """Return divisors that make of a plain rotation YaRN's (arXiv 2309.00071), float32."""
    rope, dims = config["rope_parameters"], 2 * hp.dim("rope_half")
    plain = Rope("neox", dims, float(rope["rope_theta"]))
    yarn = replace(
        plain,
        scaling="yarn",
        factor=yarn_factor(config) or 1.0,
        original_context=rope[ORIGINAL],
        beta_fast=rope.get("beta_fast") or plain.beta_fast,
        beta_slow=rope.get("beta_slow") or plain.beta_slow,
        truncate=bool(rope.get("truncate", True)),
    )
    return (frequencies(plain) / frequencies(yarn)).astype(np.float32)


def _freqs(config: Mapping[str, Any], hp: HParams) -> np.ndarray | None:
    """Return the divisors of Llama 3's rotation, and of YaRN where no key says how it rounds."""
    if (config.get("rope_parameters") or {}).get("rope_type") == YARN_AS_FACTORS:
        return _yarn(config, hp)
    return llama3_factors(config, hp)


def _longrope(config: Mapping[str, Any], hp: HParams, name: str) -> np.ndarray | None:
    """Return the divisors of LongRoPE that the config lists, float32 (rope_dim / 2,)."""
    listed = (config.get("rope_parameters") or {}).get(name)
    if not listed or config["rope_parameters"].get("rope_type") != "longrope":
        return None
    if not isinstance(listed, list) or len(listed) != hp.dim("rope_half"):
        raise ModelError(f"config.json: {name} is not a list of {hp.dim('rope_half')} numbers")
    try:
        return np.array(listed, np.float32)
    except (TypeError, ValueError):
        raise ModelError(f"config.json: {name} holds other things than numbers") from None


TRANSFORMS = {
    "rope_freqs": Transform(make=_freqs),
    "rope_proportional": Transform(make=_proportional),
    "rope_factors_long": Transform(make=lambda config, hp: _longrope(config, hp, "long_factor")),
    "rope_factors_short": Transform(make=lambda config, hp: _longrope(config, hp, "short_factor")),
}

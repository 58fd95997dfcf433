"""rope(x, n_head, rope) -> x with each head's first ``rope.dims`` columns rotated by position.

x (n_tokens, n_head * head_dim). Pair i turns by the angle of `angles` (arXiv 2104.09864): columns
2i and 2i + 1 for kind "norm", i and i + dims/2 for "neox". Scaling as in ggml's rope_yarn (arXiv
2309.00071).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ggq.models.layers.rope import Rope

__all__ = ["angles", "frequencies"]


def _correction(rope: Rope, turns: float) -> float:
    """Return the pair (as a real number) that turns ``turns`` times over the original context."""
    ratio = rope.original_context / (turns * 2 * math.pi)
    return rope.dims * math.log(ratio) / (2 * math.log(rope.base))


def frequencies(rope: Rope, factors: np.ndarray | None = None) -> np.ndarray:
    """Return radians per position of each pair, float64 (dims / 2,)."""
    pairs = np.arange(rope.dims // 2)
    plain = np.float64(rope.base) ** (-2.0 * pairs / rope.dims)
    if factors is not None:
        plain = plain / np.asarray(factors, np.float64)[: len(pairs)]
    if rope.scaling == "none":
        return plain
    slowed = plain / rope.factor
    if rope.scaling != "yarn":
        return slowed
    low, high = _correction(rope, rope.beta_fast), _correction(rope, rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(0.0, low), min(rope.dims - 1.0, high)
    kept = rope.ext_factor * (1.0 - np.clip((pairs - low) / max(0.001, high - low), 0.0, 1.0))
    return slowed * (1.0 - kept) + plain * kept


def angles(
    rope: Rope, positions: np.ndarray, factors: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (cos, sin) with the magnitude in them, float64 (n_positions, dims / 2) each.

    ``positions``: (n_positions,), or (n_positions, 3): time, row and column, for ``rope.sections``.
    """
    places = np.asarray(positions, np.float64).reshape(len(positions), -1)
    positions = places[:, :1]
    pairs = places[:, rope.axes] if places.shape[1] > 1 and rope.sections else positions
    turned = pairs * frequencies(rope, factors)
    length = np.float64(rope.magnitude)
    if rope.temperature:
        span = rope.temperature_length or rope.original_context
        cooled = np.log1p((positions + rope.temperature_offset) // span)
        length = length * (1 + rope.temperature * cooled)
    return np.cos(turned) * length, np.sin(turned) * length

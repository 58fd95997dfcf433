"""What a model's layers need of the cache: sizes of keys, values and states, and windows."""

from __future__ import annotations

from ggq.models.base import HParams
from ggq.runtime.cache.layout import STEP_TOKENS

__all__ = ["kv_layers", "kv_windows", "state_sizes", "step_tokens"]


def kv_layers(hp: HParams) -> list[tuple[int, int, int]]:
    """Return (key-value heads, key columns, value columns) of each layer's cache."""
    layers = range(hp.n_layer)
    own = [not hp.recurrent(i) and hp.kv_layer(i) == i for i in layers]
    return [(own[i] * hp.heads_kv(i), hp.width(i), hp.width_v(i)) for i in layers]


def kv_windows(hp: HParams) -> list[int | None]:
    """Return the window of each layer's cache, None where it holds all positions."""
    return [hp.window_at(i) for i in range(hp.n_layer)]


def state_sizes(hp: HParams) -> list[tuple[int, int]]:
    """Return the floats of each layer's two recurrent states."""
    return [hp.state_sizes(i) for i in range(hp.n_layer)]


def step_tokens(hp: HParams, n_ctx: int) -> int:
    """Return the most tokens of a step: an encoder's text is evaluated whole."""
    return STEP_TOKENS if hp.causal else n_ctx

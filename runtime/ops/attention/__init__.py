"""attention(q, k, v, layer, spec) -> softmax(mask(scale * q k^T)) v, head by head.

A token sees itself and those before it, unless the spec is not ``causal``: then all of the step.

q (n_tokens, n_head * head_dim), k (n_tokens, n_head_kv * head_dim), v (n_tokens, n_head_kv *
head_dim_v) give (n_tokens, n_head * head_dim_v); k and v join the cache of ``layer``, None: that
layer, evaluated before, has stored its own, which serve here too. Consecutive
query heads share a key-value head (arXiv 2305.13245). ``softcap`` c turns scores s into
c tanh(s / c); ``sinks`` names one logit per head that takes weight and gives no value (arXiv
2309.17453).
"""

from __future__ import annotations

import numpy as np

__all__ = ["visible"]


def visible(n_tokens: int, past: int, window: int | None = None, causal: bool = True) -> np.ndarray:
    """Return bool (n_tokens, past + n_tokens): which cached position each new token may see."""
    if not causal:
        return np.ones((n_tokens, past + n_tokens), bool)
    query, key = past + np.arange(n_tokens)[:, None], np.arange(past + n_tokens)[None, :]
    seen = key <= query
    return seen if window is None else seen & (query - key < window)

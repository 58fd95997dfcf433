"""attention(q, k, v, layer, spec) -> softmax(mask(scale * q k^T)) v, head by head.

A token sees itself and those before it, ``window`` of them if given. Where the spec is not
``causal`` it sees its whole text, or as far as half the ``window`` to both sides.

q (n_tokens, n_head * head_dim), k (n_tokens, n_head_kv * head_dim), v (n_tokens, n_head_kv *
head_dim_v) give (n_tokens, n_head * head_dim_v); k and v join the cache of ``layer``, None: that
layer, evaluated before, has stored its own, which serve here too. Consecutive
query heads share a key-value head (arXiv 2305.13245). ``softcap`` c turns scores s into
c tanh(s / c); ``sinks`` names one logit per head that takes weight and gives no value (arXiv
2309.17453). ``alibi`` takes a head's slope times the distance from a score (arXiv 2108.12409).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

__all__ = ["distances", "reach", "slopes", "visible"]


def reach(spec: Any) -> int | None:
    """Return how many positions to one side a token sees, its own counted; None: all."""
    if spec.causal or spec.window is None:
        window: int | None = spec.window
        return window
    return int(spec.window // 2 + 1)


@functools.cache
def slopes(n_head: int, max_bias: float) -> np.ndarray:
    """Return the heads' slopes of ALiBi, float32 (n_head,): 2**(-max_bias / n), its square, ...

    n is the power of 2 up to ``n_head``; further heads take every other one of 2n (as ggml's).
    """
    n = 1 << int(math.log2(n_head))
    steps = [h + 1.0 if h < n else h - n + 0.5 for h in range(n_head)]
    return np.array([2.0 ** (-max_bias * step / n) for step in steps], np.float32)


def visible(n_tokens: int, past: int, window: int | None = None, causal: bool = True) -> np.ndarray:
    """Return bool (n_tokens, past + n_tokens): which cached position each new token may see."""
    ahead = distances(n_tokens, past)
    if not causal:
        far = past + n_tokens if window is None else window // 2
        return np.abs(ahead) <= far
    seen = ahead <= 0
    return seen if window is None else seen & (-ahead < window)


def distances(n_tokens: int, past: int) -> np.ndarray:
    """Return int64 (n_tokens, past + n_tokens): how far each position lies ahead of each token."""
    return np.arange(past + n_tokens)[None, :] - (past + np.arange(n_tokens)[:, None])

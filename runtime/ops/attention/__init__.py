"""attention(q, k, v, layer, spec) -> softmax(mask(scale * q k^T)) v, head by head.

A token sees itself and those before it, ``window`` of them if given; where it is ``chunked``, of
the text cut into pieces of as many tokens, those of its own. Where the spec is not
``causal`` it sees its whole text, or as far as half the ``window`` to both sides. Where it is
``mutual`` a picture's tokens see all of that picture, too.

q (n_tokens, n_head * head_dim), k (n_tokens, n_head_kv * head_dim), v (n_tokens, n_head_kv *
head_dim_v) give (n_tokens, n_head * head_dim_v); k and v join the cache of ``layer``, None: that
layer, evaluated before, has stored its own, which serve here too. Consecutive
query heads share a key-value head (arXiv 2305.13245). ``softcap`` c turns scores s into
c tanh(s / c); ``sinks`` names one logit per head that takes weight and gives no value (arXiv
2309.17453). ``alibi`` lowers a head's capped scores by its slope for each position between key and
query (arXiv 2108.12409).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

__all__ = ["first_seen", "reach", "slopes", "visible"]


def reach(spec: Any) -> int | None:
    """Return how many positions to one side a token sees, its own counted; None: all.

    Below 0: those of its piece, as kernels are told.
    """
    window: int | None = spec.window
    if window is not None and spec.chunked:
        return -window
    return window if spec.causal or window is None else window // 2 + 1


def first_seen(position: int, spec: Any) -> int:
    """Return the first position that the token at ``position`` sees."""
    if spec.window is None or not spec.causal:
        return 0
    if spec.chunked:
        return position - position % int(spec.window)
    return max(0, position + 1 - int(spec.window))


def visible(n_tokens: int, past: int, spec: Any) -> np.ndarray:
    """Return bool (n_tokens, past + n_tokens): which cached position each new token may see."""
    query, key = past + np.arange(n_tokens)[:, None], np.arange(past + n_tokens)[None, :]
    window = spec.window
    if not spec.causal:
        far = past + n_tokens if window is None else window // 2
        return abs(query - key) <= far
    seen = key <= query
    if window is None:
        return seen
    return seen & (query // window == key // window if spec.chunked else query - key < window)


@functools.cache  # kernels hold its address
def slopes(n_head: int, alibi: float) -> np.ndarray:
    """Return ALiBi's slopes, float32 (n_head,): 2**(-alibi h / n) for h from 1 to n, a power of 2.

    Heads beyond the greatest power of 2 have the odd ones of twice as many slopes.
    """
    n = 1 << (n_head.bit_length() - 1)
    exponents = [-alibi * (h + 1) / n for h in range(n)]
    exponents += [-alibi * (2 * h + 1) / (2 * n) for h in range(n_head - n)]
    return np.exp2(exponents).astype(np.float32)

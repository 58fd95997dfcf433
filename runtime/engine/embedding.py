"""Texts' vectors from a model: its hidden states, pooled over the tokens. It knows no text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ggq.errors import ModelError, UsageError
from ggq.runtime.engine.backend import Output
from ggq.runtime.engine.engine import Engine

__all__ = ["embed"]

# Pooling as files number it (llama.cpp's llama_pooling_type): rows (n_tokens, n_embd) to one.
_POOLS: dict[int, Callable[[np.ndarray], Any]] = {
    0: lambda rows: rows.mean(axis=0, dtype=np.float64),  # none: left to us
    1: lambda rows: rows.mean(axis=0, dtype=np.float64),
    2: lambda rows: rows[0].astype(np.float64),  # of the token that BERT calls CLS
    3: lambda rows: rows[-1].astype(np.float64),
}


def embed(engine: Engine, ids: Any) -> np.ndarray:
    """Return the mean of the tokens' hidden states, normalized: float32 (n_embd,).

    Where the file says so it is the first or the last token's. ModelError for other poolings.
    """
    ids, hp = np.asarray(ids, np.int64), engine.hp
    if hp.pooling not in _POOLS:
        raise ModelError(f"pooling type {hp.pooling}: mean, first and last token are known")
    if not len(ids):
        raise UsageError("no tokens to embed")
    if not hp.causal and len(ids) > hp.n_ctx_train:
        raise UsageError(f"a text of {len(ids)} tokens: {hp.n_ctx_train} are possible")
    sequence = engine.sequence()
    try:
        rows = engine.evaluate(sequence, ids, every=True, output=Output.HIDDEN)
    finally:
        sequence.free()
    pooled: np.ndarray = _POOLS[hp.pooling](rows)
    if not np.isfinite(pooled).all():
        raise ModelError("the model gives NaN or infinite values: its weights are damaged")
    unit = pooled / max(float(np.linalg.norm(pooled)), 1e-12)
    return unit.astype(np.float32)

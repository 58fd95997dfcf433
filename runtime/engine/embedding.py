"""Texts' vectors from a model: its forward pass without the head, pooled over the tokens.

Shares weights, cache and threads with the engine that it belongs to. It knows no text.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ggq.errors import ModelError, UsageError
from ggq.models.hparams import HParams
from ggq.runtime.engine.engine import Engine, check_finite

__all__ = ["Embedder"]

_HEADS = ("output.weight", "token_embd.weight")
# Pooling as files number it (llama.cpp's llama_pooling_type): rows (n_tokens, n_embd) to one.
_POOLS = {
    0: lambda rows: rows.mean(axis=0, dtype=np.float64),  # none: left to us
    1: lambda rows: rows.mean(axis=0, dtype=np.float64),
    2: lambda rows: rows[0].astype(np.float64),  # of the token that BERT calls CLS
    3: lambda rows: rows[-1].astype(np.float64),
}


class _WithoutHead:
    """The ops of a back end; the last linear gives back its input."""

    def __init__(self, ops: Any):
        self._ops = ops

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)

    def linear(self, x: Any, name: str, **options: Any) -> Any:
        """Return x for the head, else what the back end's linear returns."""
        return x if name in _HEADS else self._ops.linear(x, name, **options)


class _Headless:
    """An architecture whose forward pass ends with the normed hidden states."""

    def __init__(self, architecture: Any):
        self._architecture = architecture

    def forward(self, ops: Any, hp: HParams) -> Any:
        """Return the normed hidden states of the gathered rows."""
        plain = replace(hp, logit_scale=None, final_softcap=None)
        return self._architecture.forward(_WithoutHead(ops), plain)


class Embedder(Engine):
    """An engine whose steps return hidden states, float32 (n_wanted, n_embd)."""

    embeds = True

    def __init__(self, engine: Engine):
        """Share everything with ``engine`` but the plans."""
        self.__dict__.update(engine.__dict__)
        self._plans = {}
        self._architecture = _Headless(engine._architecture)

    def embed(self, ids: Any) -> np.ndarray:
        """Return the mean of the tokens' hidden states, normalized: float32 (n_embd,).

        Where the file says so it is the first or the last token's. ModelError for other poolings.
        """
        ids = np.asarray(ids, np.int64)
        if self.hp.pooling not in _POOLS:
            raise ModelError(
                f"pooling type {self.hp.pooling}: mean, first and last token are known"
            )
        if not len(ids):
            raise UsageError("no tokens to embed")
        if not self.hp.causal and len(ids) > self.hp.n_ctx_train:
            raise UsageError(f"a text of {len(ids)} tokens: {self.hp.n_ctx_train} are possible")
        sequence = self.sequence()
        try:
            rows = self.evaluate(sequence, ids, every=True)
        finally:
            sequence.free()
        pooled = _POOLS[self.hp.pooling](rows)
        check_finite(pooled)
        return (pooled / max(float(np.linalg.norm(pooled)), 1e-12)).astype(np.float32)

    def _rows(self, plan: Any, n: int) -> np.ndarray:
        stride = plan.output.stride // 4
        start = plan.output.address - plan.keep[0].ctypes.data
        arena = plan.keep[0][start : start + n * 4 * stride].view(np.float32)
        return arena.reshape(n, stride)[:, : self.hp.n_embd].copy()

"""The engine on a torch device: the CPU engine's interface, weights and cache lying there."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch

from ggq.errors import UsageError
from ggq.models.hparams import HParams
from ggq.runtime.backends.torch.ops import DeviceCache, DeviceOps
from ggq.runtime.backends.torch.weights import DeviceWeights
from ggq.runtime.engine.embedding import Embedder
from ggq.runtime.engine.engine import BATCH, Engine

__all__ = ["TorchEngine"]


class TorchEngine(Engine):
    """Evaluates tokens of any number of sequences on the device of ``weights``.

    ``kind``: f16 or f32 cache; UsageError for others.
    """

    def __init__(
        self, architecture: Any, hp: HParams, weights: DeviceWeights, *, n_ctx: int, kind: str
    ):
        if kind not in ("f16", "f32"):
            named = kind if isinstance(kind, str) else "/".join(kind)
            raise UsageError(f"cache type {named}: f16 or f32 on device {weights.device}")
        self.hp, self.n_ctx, self.weights = hp, n_ctx, weights
        self.batch = BATCH if hp.causal else n_ctx
        self._architecture = architecture
        self.cache = DeviceCache(hp.memories, n_ctx, kind, weights.device)
        self._inputs = DeviceOps(weights, self.cache)
        self.executor = _Forward(self)

    def plan(self, n_tokens: int) -> None:
        """Return nothing: torch computes at once."""

    def _rows(self, plan: None, n: int) -> np.ndarray:
        return self.executor.rows[:n]

    @cached_property
    def _embedder(self) -> Any:
        return _TorchEmbedder(self)

    def close(self) -> None:
        """Give the device's memory back."""
        self.weights.clear()
        self.cache.keys.clear()
        self.cache.values.clear()


class _Forward:
    """What stands for the CPU engine's executor: a step is one call of the forward pass."""

    def __init__(self, engine: TorchEngine):
        self._engine = engine
        self.rows = np.empty((0, 0), np.float32)

    def run(self, plan: None) -> None:
        """Compute the rows that were asked for."""
        engine = self._engine
        with torch.inference_mode():
            rows = engine._architecture.forward(engine._inputs, engine.hp)
            self.rows = rows.cpu().numpy()


class _TorchEmbedder(Embedder, TorchEngine):
    """The engine's forward pass without the head."""

    _rows = TorchEngine._rows

    def __init__(self, engine: TorchEngine):
        super().__init__(engine)
        self.executor = _Forward(self)

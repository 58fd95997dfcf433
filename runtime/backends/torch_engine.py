"""The engine on a torch device: the CPU engine's interface, weights and cache lying there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ggq.errors import ModelError, UsageError
from ggq.models.base import HParams
from ggq.runtime.backends.torch_ops import DeviceCache, DeviceOps
from ggq.runtime.backends.torch_weights import DeviceWeights
from ggq.runtime.engine import Engine, kv_layers

__all__ = ["TorchEngine"]


class TorchEngine(Engine):
    """Evaluates tokens of any number of sequences on ``device``.

    ``kind``: f16 or f32 cache; ``weights_kind``: see DeviceWeights; ``release(name)``: called once
    a tensor has been copied to the device. Raises UsageError for other kinds of cache.
    """

    def __init__(
        self,
        architecture: Any,
        hp: HParams,
        weights: Any,
        *,
        n_ctx: int,
        kind: str = "f16",
        device: torch.device,
        weights_kind: str = "auto",
        release: Callable[[str], None] | None = None,
    ):
        if kind not in ("f16", "f32"):
            raise UsageError(f"cache type {kind}: f16 or f32 on device {device}")
        if any(hp.recurrent(i) for i in range(hp.n_layer)):
            raise ModelError(f"{hp.arch}: recurrent layers run on device cpu only so far")
        self.hp, self.n_ctx, self.device = hp, n_ctx, device
        self.cache = DeviceCache(kv_layers(hp), n_ctx, kind, device)
        self.weights = DeviceWeights(weights, device, weights_kind, release)
        self._inputs = DeviceOps(weights, self.weights, self.cache)
        self.executor = _Forward(lambda: architecture.forward(self._inputs, hp))

    def plan(self, n_tokens: int) -> None:
        """Return nothing: torch computes at once."""

    def _rows(self, plan: None, n: int) -> np.ndarray:
        return self.executor.logits

    def close(self) -> None:
        """Give the device's memory back."""
        self.weights.clear()
        self.cache.keys.clear()
        self.cache.values.clear()


class _Forward:
    """What stands for the CPU engine's executor: a step is one call of the forward pass."""

    def __init__(self, forward: Callable[[], torch.Tensor]):
        self._forward = forward
        self.logits = np.empty((0, 0), np.float32)

    def run(self, plan: None) -> None:
        """Compute the logits that were asked for."""
        with torch.inference_mode():
            self.logits = self._forward().cpu().numpy()

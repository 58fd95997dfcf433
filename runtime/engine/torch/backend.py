"""The back end of a torch device: weights and cache lie there, every step is computed at once."""

from __future__ import annotations

import numpy as np
import torch

from ggq.errors import UsageError
from ggq.models.hparams import HParams
from ggq.runtime.cache.kinds import Kind
from ggq.runtime.engine.backend import Architecture, Output, Part, cache_positions, step_tokens
from ggq.runtime.engine.headless import ending_with
from ggq.runtime.engine.torch.ops import DeviceCache, DeviceOps
from ggq.runtime.engine.torch.weights import DeviceWeights

__all__ = ["DeviceBackend"]


class DeviceBackend:
    """Runs steps on the device of ``weights`` (ggq.runtime.engine.backend.Backend).

    ``cache_type``: f16 or f32; UsageError for others.
    """

    def __init__(
        self,
        architecture: Architecture,
        hp: HParams,
        weights: DeviceWeights,
        *,
        n_ctx: int,
        cache_type: Kind,
    ):
        if cache_type not in ("f16", "f32"):
            named = cache_type if isinstance(cache_type, str) else "/".join(cache_type)
            raise UsageError(f"cache type {named}: f16 or f32 on device {weights.device}")
        self.max_tokens = step_tokens(hp, n_ctx)
        self.cache = DeviceCache(
            hp.memories, cache_positions(hp, n_ctx), cache_type, weights.device
        )
        self.weights = weights
        self.profile: dict[str, int] | None = None  # never written to: a device runs behind us
        self._hp, self._architecture = hp, architecture
        self._ops = DeviceOps(weights, self.cache)

    def run(self, parts: list[Part], output: Output) -> np.ndarray:
        """Evaluate the parts of a step; return a row for each token that wants one."""
        n_rows = self._ops.fill(parts)
        with torch.inference_mode():
            rows = ending_with(output, self._architecture).forward(self._ops, self._hp)
            host: np.ndarray = rows.cpu().numpy()
        return host[:n_rows]

    def close(self) -> None:
        """Give the device's memory back."""
        self.weights.clear()
        self.cache.keys.clear()
        self.cache.values.clear()

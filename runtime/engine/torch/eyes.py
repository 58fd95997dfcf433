"""A vision tower in torch, on any device that torch has."""

from __future__ import annotations

import numpy as np
import torch

from ggq.models.vision.sight import Sight
from ggq.models.vision.tower import Tower
from ggq.runtime.backends.torch.backend import TorchOps
from ggq.runtime.engine.retina import PictureWeights, Progress

__all__ = ["TorchRetina"]


class PictureOps(TorchOps):
    """Operations on one picture: ``picture`` holds its patches."""

    picture: np.ndarray


class TorchRetina:
    """Encodes views in float32."""

    def __init__(self, tower: Tower, sight: Sight, weights: PictureWeights, device: str):
        self._tower, self._sight = tower, sight
        self._ops = PictureOps(weights, device)

    def run(self, pixels: np.ndarray, progress: Progress | None = None) -> np.ndarray:
        """Return the rows of a view, float32 (tokens, width)."""
        self._ops.picture = self._tower.patches(self._sight, pixels)
        view = self._sight.view(*pixels.shape[1:])
        with torch.inference_mode():
            rows = self._tower.forward(self._ops, self._sight, view)
        found: np.ndarray = rows.float().cpu().numpy()
        return found

    def close(self) -> None:
        """Give the device's memory back."""
        self._ops.release()

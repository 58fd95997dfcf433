"""Scales that take outliers out of the activations, where the runtime rounds these to 8 bits.

SmoothQuant (arXiv 2211.10438): s = max|x|^strength / max|w|^(1 - strength), folded into the
producers; strengths up to the one asked for are tried, 0 among them, with activations rounded as
the engine will: in blocks as the CPU kernels take them, or per token or tensor (grids).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import numpy as np

from ggq.converters import grids
from ggq.converters.conversion import Conversion
from ggq.converters.prepasses.folds import Fold, FoldPass, whole
from ggq.errors import ModelError, printable

__all__ = ["Smooth"]

BLOCK = 32  # activations that share a scale
ROWS = 512  # inputs that judge


@dataclass
class Smooth(FoldPass):
    """``strength``: the most that may move; ``grid``: strengths tried between it and 0."""

    RANGES: ClassVar[dict[str, tuple[float, float]]] = {"strength": (0, 1), "grid": (1, inf)}

    strength: float = 0.5
    grid: int = 4

    def matters(self, job: Conversion) -> bool:
        """Return whether there are blocks to choose and activations that are rounded."""
        return super().matters(job) and job.inputs.scope != "none"

    def search(self, job: Any, fold: Fold, x: Any) -> float:
        inputs = job.inputs
        if inputs.scope == "block" and x.student[0].shape[1] % BLOCK:
            return 0.0  # such activations are not rounded in blocks
        top = np.max([part.abs().amax(0).numpy() for part in x.student], axis=0)
        rows = np.concatenate([part.numpy() for part in x.student])
        rows = rows[:: max(1, len(rows) // ROWS)].astype(np.float32)
        types = dict(job.plan.types)
        weights = {n: whole(job.tensors[n]) for n in fold.consumers}
        peak = np.max([np.abs(w).max(0) for w in weights.values()], axis=0)
        power = (rows.astype(np.float64) ** 2).mean(0)
        if not np.isfinite(power).all():
            raise ModelError(f"the inputs of {printable(fold.consumers[0])} are not finite")

        def error(scale: np.ndarray) -> float:
            importance = (power / scale**2).astype(np.float32)
            made = inputs.rounded(rows / scale, float((top / scale).max()))
            total = 0.0
            for name, w in weights.items():
                kind = grids.kind(types[name])
                values = kind.dequantize(kind.quantize((w * scale).astype(np.float32), importance))
                total += float(((made @ values.T - rows @ w.T) ** 2).sum(dtype=np.float64))
            return total

        ones = np.ones(len(top), np.float32)
        tried = {0.0: (error(ones), ones)}
        for step in range(1, self.grid + 1):
            strength = self.strength * step / self.grid
            scale = np.maximum(top, 1e-5) ** strength / np.maximum(peak, 1e-5) ** (1 - strength)
            scale = fold.tied(np.clip(scale / np.exp(np.log(scale).mean()), 1e-3, 1e3))
            tried[strength] = (error(scale.astype(np.float32)), scale)
        best = min(tried, key=lambda strength: tried[strength][0])
        if best:
            fold.scale = tried[best][1]
        self.weigh(job, fold, power / tried[best][1] ** 2)
        return best


PREPASS = Smooth

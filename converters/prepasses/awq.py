"""Scales that protect the columns with the strongest inputs, folded into the producers.

AWQ (arXiv 2306.00978): the scale of a column is its mean input magnitude to the power alpha; alpha
from a grid that holds 0, judged with the real block search of the types that were chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import numpy as np

from ggq.converters import grids
from ggq.converters.prepasses.folds import Fold, FoldPass, whole
from ggq.converters.prepasses.solving.hessian import layer_error

__all__ = ["AWQ"]

LIMITS = 1e-3, 1e3  # of a scale: a column that is never used must not take the others' range


@dataclass
class AWQ(FoldPass):
    """``grid`` alphas from 0 below 1 are tried; ``clip``: also rows cut by up to a third.

    Clipping changes what the weights are, for passes that follow as well: not before gptq.
    """

    RANGES: ClassVar[dict[str, tuple[float, float]]] = {"grid": (1, inf)}

    grid: int = 10
    clip: bool = False

    def search(self, job: Any, fold: Fold, x: Any) -> float:
        from ggq.converters.prepasses.base import Replaced
        from ggq.converters.prepasses.solving.streams import Moments

        hessian = Moments(x, fold.consumers[0]).hessian.damped(0.01)
        magnitude = sum(part.abs().double().sum(0) for part in x.student).numpy()
        types = dict(job.plan.types)
        kinds = {n: grids.kind(types[n]) for n in fold.consumers}
        weights = {n: whole(job.tensors[n]) for n in fold.consumers}

        def error(scale: np.ndarray) -> float:
            importance = (np.diag(hessian) / scale**2).astype(np.float32)
            total = 0.0
            for name, w in weights.items():
                blocks = kinds[name].quantize((w * scale).astype(np.float32), importance)
                values = kinds[name].dequantize(blocks) / scale
                total += float(layer_error(values, w, hessian).sum())
            return total

        ones = np.ones(len(hessian))
        tried = {0.0: (error(ones), ones)}
        for step in range(1, self.grid):
            scale = _scale(fold, magnitude, step / self.grid)
            tried[step / self.grid] = (error(scale), scale)
        best = min(tried, key=lambda alpha: tried[alpha][0])
        if best:
            fold.scale = tried[best][1]
        self.weigh(job, fold, np.diag(hessian) / tried[best][1] ** 2)
        if self.clip:
            for name, w in weights.items():
                clipped = _clipped(kinds[name], w, tried[best][1], hessian)
                shape = job.tensors[name].shape
                job.tensors = {**job.tensors, name: Replaced(name, shape, clipped)}
        return best


def _scale(fold: Fold, magnitude: np.ndarray, alpha: float) -> np.ndarray:
    """Return the scales of one alpha, centred so that they neither grow nor shrink the whole."""
    scale = np.maximum(magnitude / max(magnitude.mean(), 1e-30), 1e-4) ** alpha
    scale = fold.tied(scale / np.sqrt(scale.max() * scale.min()))
    return np.clip(scale, *LIMITS)


def _clipped(kind: Any, w: np.ndarray, scale: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Return ``w`` with each row cut at the share of its range that hurts least."""
    importance = (np.diag(hessian) / scale**2).astype(np.float32)
    best = np.array(w, np.float32)
    least = None
    for share in (1.0, 0.95, 0.9, 0.8, 0.7):
        limit = share * np.abs(w * scale).max(1, keepdims=True)
        cut = np.clip(w * scale, -limit, limit).astype(np.float32)
        values = kind.dequantize(kind.quantize(cut, importance)) / scale
        error = layer_error(values, w, hessian)
        if least is None:
            least = error
            continue
        better = error < least
        least = np.minimum(error, least)
        best[better] = (cut / scale)[better]
    return best


PREPASS = AWQ

"""The largest magnitude that enters each linear layer: the static scales of W8A8_STATIC.

It runs by itself behind the other passes, on what they made of the weights; a tensor's engine takes
the largest magnitude over 127 as the step of all its inputs, whatever the token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ggq.converters import grids
from ggq.converters.conversion import Conversion
from ggq.converters.prepasses.base import Prepass
from ggq.converters.prepasses.cost import Cost, Sizes
from ggq.errors import ModelError, printable

__all__ = ["Activations"]


@dataclass
class Activations(Prepass):
    """Writes ``peaks`` of a conversion to a folder with static scales; experts share theirs."""

    NEEDS: ClassVar[tuple[str, ...]] = ("torch",)

    tokens: int = 8192

    def matters(self, job: Conversion) -> bool:
        """Return whether the scale of activations is stored."""
        return job.inputs.scope == "tensor"

    def cost(self, sizes: Sizes) -> Cost:
        """One forward of the model."""
        return Cost(sizes.forward(sizes.blocks), 16.0 * sizes.tokens * sizes.widest)

    def __call__(self, job: Conversion) -> None:
        import torch

        from ggq.converters.calibration.weights import SourceWeights, hparams_of
        from ggq.converters.prepasses.solving.streams import StreamOps

        architecture, hp = hparams_of(job)
        calibration, peaks = self.windows(job), {}

        def listen(name: str, x: Any, *_: Any) -> None:
            peak = float(max((part.abs().max() for part in x.student if part.numel()), default=0))
            if not np.isfinite(peak):
                raise ModelError(f"the inputs of {printable(name)} are not finite")
            peaks[name] = peak

        with torch.inference_mode():
            weights = SourceWeights(job.tensors)
            ops = StreamOps(
                weights, calibration.windows, listen, lambda name: None, teacher_only=True
            )
            ops.run(architecture, hp)
        job.peaks = peaks
        missed = [n for n, t in job.plan.types if grids.is_grid(t) and not peaks.get(n)]
        if missed:
            what = f"{len(missed)} tensors, such as {printable(missed[0])}, get a step of 1"
            job.warnings.append(f"activations: nothing enters {what}")
        self.note(job, calibration.dataset)


PREPASS = Activations

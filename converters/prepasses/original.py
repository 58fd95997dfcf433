"""The original model's predictions and inputs on a few windows, in torch, one weight at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ggq.converters.calibration.weights import SourceWeights, hparams_of
from ggq.runtime.backends.torch.backend import TorchOps
from ggq.runtime.ops.linear import torch as linear

__all__ = ["original_rows"]


class _Lean(TorchOps):
    """Forgets a matrix once it was multiplied; gives the logits of scored positions only."""

    def linear(self, x: torch.Tensor, name: str, *rest: Any, **more: Any) -> torch.Tensor:
        made = linear.run(self, x, name, *rest, **more)
        rows = more.get("rows")
        if rows is None or rows[1] == self.tensor(name).shape[0]:
            self.release([name])
        return made

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        first = self.ids.shape[1] // 2
        return x.unflatten(0, self.ids.shape)[:, first:-1].flatten(0, 1)


def original_rows(job: Any, windows: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return logits float32 (windows, scored, n_vocab) and each matrix's mean squared inputs."""
    architecture, hp = hparams_of(job)
    power: dict[str, np.ndarray] = {}

    def listen(name: str, x: torch.Tensor) -> None:
        power[name] = x.double().square().mean(0).numpy()

    ops = _Lean(SourceWeights({**job.tensors, **job.original}))
    ops.on_linear_input(listen)
    with torch.inference_mode():
        logits = ops.step(lambda o: architecture.forward(o, hp), windows)
    return logits.numpy(), power

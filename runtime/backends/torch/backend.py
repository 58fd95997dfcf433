"""The model in torch: float32, batches of windows, differentiable, on any device that torch has.

For calibration, exact float32 logits and training; it knows no block type (weights are decoded
through their type) and no sampling. Nothing else in the runtime imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from ggq import models
from ggq.models.hparams import HParams
from ggq.runtime.backends.base import Ops, Weight

__all__ = ["TorchOps", "logits"]


class TorchOps(Ops):
    """Activations are float32 (n_sequences * n_tokens, width), the sequences one after the other.

    ``evaluate`` extends the sequences in the cache; ``reset`` starts new ones.
    """

    backend = "torch"

    def __init__(self, weights: Mapping[str, Weight], device: str | torch.device = "cpu"):
        super().__init__(weights)
        self.device = torch.device(device)
        self.ids = torch.empty(0, 0, dtype=torch.int64)  # (n_sequences, n_tokens) under evaluation
        self.past = 0  # tokens of each sequence already in the cache
        self.last_only = False
        self.pictures = None  # of text alone
        # layer -> keys, values: (n_sequences, n_head_kv, n_tokens, head_dim)
        self.cache: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._tensors: dict[str, torch.Tensor] = {}

    @property
    def positions(self) -> np.ndarray:
        """The positions of the tokens under evaluation, the same in every sequence."""
        return self.past + np.arange(self.ids.shape[1])

    @property
    def types(self) -> np.ndarray:
        """The parts of a text that the tokens belong to: all to the first."""
        return np.zeros(self.ids.shape[1], np.int64)

    def has(self, name: str) -> bool:
        """Return whether the model holds the tensor ``name`` or was given it."""
        return name in self._tensors or super().has(name)

    def tensor(self, name: str) -> torch.Tensor:
        """Return the tensor ``name`` as float32 in its own shape, decoded on first use."""
        if name not in self._tensors:
            values = np.array(self.weight(name).dequantized(), np.float32)  # torch wants its own
            self._tensors[name] = torch.from_numpy(values).to(self.device)
        return self._tensors[name]

    def replace(self, name: str, tensor: torch.Tensor) -> None:
        """Use ``tensor`` for ``name`` from now on: folded, fake-quantized or trained weights."""
        self._tensors[name] = tensor

    def release(self, names: Sequence[str] | None = None) -> None:
        """Forget the tensors ``names`` (None: all); the next use decodes the file's again."""
        for name in list(self._tensors) if names is None else names:
            self._tensors.pop(name, None)

    def reset(self) -> None:
        """Forget the cached sequences."""
        self.cache, self.past = {}, 0

    def step(self, forward: Callable[[Ops], torch.Tensor], ids: object) -> torch.Tensor:
        """Append ``ids``, (n_tokens,) or (n_sequences, n_tokens); return ``forward(self)``.

        The result is (..., n_rows, width) with the leading dimension of ``ids``.
        """
        given = torch.as_tensor(ids, dtype=torch.int64, device=self.device)
        self.ids = given.reshape(-1, given.shape[-1])  # (n_sequences, n_tokens)
        rows = forward(self)
        self.past += self.ids.shape[1]
        return rows.reshape(*given.shape[:-1], -1, rows.shape[-1])

    def evaluate(self, hp: HParams, ids: object, last_only: bool = False) -> torch.Tensor:
        """Append ``ids`` and return the logits after each, (..., n_tokens or 1, n_vocab)."""
        self.last_only = last_only
        return self.step(lambda ops: models.get(hp.arch).forward(ops, hp), ids)


def logits(weights: Mapping[str, Weight], hp: HParams, ids: object) -> np.ndarray:
    """Return the logits after each token of fresh sequences, float32 (..., len(ids), n_vocab)."""
    with torch.inference_mode():
        return TorchOps(weights).evaluate(hp, ids).numpy()

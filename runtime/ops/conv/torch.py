"""conv in torch."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


def state(
    backend: Any,
    x: torch.Tensor,
    name: str,
    layer: int,
    kind: str = "none",
    bias: str | None = None,
) -> Any:
    """Return the layer, which of its states, and that one's shape for a sequence."""
    channels, kernel_size = backend.weight(name).shape
    return layer, 0, (channels, kernel_size - 1)


def run(
    backend: Any,
    x: torch.Tensor,
    name: str,
    layer: int,
    kind: str = "none",
    bias: str | None = None,
) -> torch.Tensor:
    """Return the outputs of x's tokens; the last inputs stay in the cache."""
    weights = backend.tensor(name)
    channels, kernel_size = weights.shape
    rows = x.unflatten(0, (len(backend.ids), -1)).transpose(1, 2)  # sequences, channels, tokens
    past = backend.cache.get(("conv", layer))
    past = rows.new_zeros(*rows.shape[:2], kernel_size - 1) if past is None else past
    inputs = torch.cat((past, rows), dim=2)
    backend.cache["conv", layer] = inputs[..., inputs.shape[2] - kernel_size + 1 :]
    shift = None if bias is None else backend.tensor(bias)
    y = functional.conv1d(inputs, weights.unsqueeze(1), shift, groups=channels)
    y = functional.silu(y) if kind == "silu" else y
    return y.transpose(1, 2).flatten(0, 1)

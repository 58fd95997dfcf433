"""channel_scan in torch, token by token, all sequences and channels at once."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


def state(
    backend: Any,
    x: torch.Tensor,
    dt: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    layer: int,
    spec: Any,
) -> Any:
    """Return the layer, which of its states, and that one's shape for a sequence."""
    return layer, 1, (spec.d_state, spec.n_channels)


def run(
    backend: Any,
    x: torch.Tensor,
    dt: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    layer: int,
    spec: Any,
) -> torch.Tensor:
    """Return the outputs and keep the state."""
    n_sequences = len(backend.ids)
    x, dt, b, c = (v.unflatten(0, (n_sequences, -1)) for v in (x, dt, b, c))
    step = functional.softplus(dt)
    a, direct = backend.tensor(spec.a).T, backend.tensor(spec.d).flatten()
    held = backend.cache.get(("channel_scan", layer))
    held = x.new_zeros(n_sequences, spec.d_state, spec.n_channels) if held is None else held
    rows = []
    for t in range(x.shape[1]):
        new = b[:, t, :, None] * (step[:, t] * x[:, t])[:, None]
        held = held * torch.exp(a * step[:, t, None]) + new
        rows.append((held * c[:, t, :, None]).sum(1) + direct * x[:, t])
    backend.cache["channel_scan", layer] = held
    return torch.stack(rows, dim=1).flatten(0, 1)

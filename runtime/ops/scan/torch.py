"""scan in torch, token by token, all sequences and heads at once."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


def state(backend: Any, x: torch.Tensor, dt: torch.Tensor, layer: int, spec: Any) -> Any:
    """Return the layer, which of its states, and that one's shape for a sequence."""
    return layer, 1, (spec.n_head, spec.d_state, spec.head_dim)


def run(backend: Any, x: torch.Tensor, dt: torch.Tensor, layer: int, spec: Any) -> torch.Tensor:
    """Return the outputs and keep the state."""
    n, d, groups, size = spec.n_head, spec.head_dim, spec.n_group, spec.d_state
    n_sequences = len(backend.ids)
    x, dt = (a.unflatten(0, (n_sequences, -1)) for a in (x, dt))
    x, b, c = x.split((n * d, groups * size, groups * size), dim=-1)
    x = x.unflatten(-1, (n, d))
    b, c = (a.unflatten(-1, (groups, size)).repeat_interleave(n // groups, dim=2) for a in (b, c))
    step = functional.softplus(dt + backend.tensor(spec.bias).flatten())
    decay = torch.exp(step * backend.tensor(spec.a).flatten())
    direct = backend.tensor(spec.d).flatten()[:, None]
    held = backend.cache.get(("scan", layer))
    held = x.new_zeros(n_sequences, n, size, d) if held is None else held
    rows = []
    for t in range(x.shape[1]):
        new = torch.einsum("shi,shd->shid", b[:, t], step[:, t, :, None] * x[:, t])
        held = held * decay[:, t, :, None, None] + new
        rows.append(torch.einsum("shid,shi->shd", held, c[:, t]) + direct * x[:, t])
    backend.cache["scan", layer] = held
    return torch.stack(rows, dim=1).flatten(2).flatten(0, 1)

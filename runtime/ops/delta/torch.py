"""delta in torch, token by token, all sequences and heads at once."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from ggq.runtime.ops.delta import LENGTH_EPS


def state(
    backend: Any, x: torch.Tensor, alpha: torch.Tensor, beta: torch.Tensor, layer: int, spec: Any
) -> Any:
    """Return the layer, which of its states, and that one's shape for a sequence."""
    return layer, 1, (spec.n_head, spec.head_dim, spec.head_dim_v)


def run(
    backend: Any,
    x: torch.Tensor,
    alpha: torch.Tensor,
    beta: torch.Tensor,
    layer: int,
    spec: Any,
) -> torch.Tensor:
    """Return the outputs and keep the state."""
    n, keys, d, dv = spec.n_head, spec.n_key_heads, spec.head_dim, spec.head_dim_v
    n_sequences = len(backend.ids)
    x, alpha, beta = (a.unflatten(0, (n_sequences, -1)) for a in (x, alpha, beta))
    q, k, v = x.split((keys * d, keys * d, n * dv), dim=-1)
    shared = n // keys
    head = [h // shared if spec.grouped else h % keys for h in range(n)]
    q, k = (_unit(a.unflatten(-1, (keys, d)))[:, :, head] for a in (q, k))
    v = v.unflatten(-1, (n, dv))
    decay = torch.exp(backend.tensor(spec.a) * functional.softplus(alpha + backend.tensor(spec.dt)))
    rate = beta.sigmoid()
    state = backend.cache.get(("delta", layer))
    state = x.new_zeros(n_sequences, n, d, dv) if state is None else state
    rows = []
    for t in range(x.shape[1]):
        state = state * decay[:, t, :, None, None]
        error = (v[:, t] - torch.einsum("shdv,shd->shv", state, k[:, t])) * rate[:, t, :, None]
        state = state + torch.einsum("shd,shv->shdv", k[:, t], error)
        rows.append(torch.einsum("shdv,shd->shv", state, q[:, t]) * d**-0.5)
    backend.cache["delta", layer] = state
    return torch.stack(rows, dim=1).flatten(2).flatten(0, 1)


def _unit(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + LENGTH_EPS)

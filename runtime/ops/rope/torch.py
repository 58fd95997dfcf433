"""rope in torch: tables in float64 numpy, the rotation in float32 (MPS has nothing wider)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ggq.runtime.ops.rope import angles

if TYPE_CHECKING:
    from ggq.models.layers.rope import Rope


def run(backend: Any, x: torch.Tensor, n_head: int, rope: Rope) -> torch.Tensor:
    """Return x with the pairs of each head rotated."""
    factors = None if rope.factors is None else backend.tensor(rope.factors).detach().cpu().numpy()
    n_sequences = len(backend.ids)
    cos, sin = (
        torch.from_numpy(table.astype(np.float32)).to(x.device).repeat(n_sequences, 1)[:, None, :]
        for table in angles(rope, backend.positions, factors)
    )
    return rotate(x, n_head, rope, (cos, sin))


def rotate(
    x: torch.Tensor, n_head: int, rope: Rope, table: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Return x rotated by ``table``: cos and sin, float32 (n_tokens, 1, dims / 2) each."""
    cos, sin = table
    heads = x.reshape(len(x), n_head, -1)
    turned, rest = heads[..., : rope.dims], heads[..., rope.dims :]
    if rope.kind == "neox":
        a, b = turned.chunk(2, dim=-1)
        turned = torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    else:
        a, b = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
    return torch.cat((turned, rest), dim=-1).reshape(x.shape)

"""Learned augmented residual (Gemma 3n): a low-rank map beside attention (arXiv 2411.07501)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ggq.models.layers.base import Part
from ggq.models.layers.linear import linear, rms_norm
from ggq.models.table import norm, rows

__all__ = ["TENSORS", "Laurel"]


@dataclass(frozen=True)
class Laurel(Part):
    """A map of ``rank`` columns in its middle, normed and added to its input."""

    rank: int
    norm_eps: float

    @property
    def dims(self) -> dict[str, int]:
        return {"laurel": self.rank}

    def forward(self, ops: Any, x: Any) -> Any:
        p = f"blk.{self.layer}.laurel_"
        y = linear(ops, linear(ops, x, f"{p}l"), f"{p}r")
        return ops.add(x, rms_norm(ops, y, f"{p}post_norm", self.norm_eps))


KEPT: dict[str, Any] = {"role": "kept", "bias": False, "part": Laurel}
TENSORS = (
    *rows("laurel_l", "laurel.linear_left", ("laurel", "embd"), **KEPT),
    *rows("laurel_r", "laurel.linear_right", ("embd", "laurel"), **KEPT),
    *norm("laurel_post_norm", "laurel.post_laurel_norm", part=Laurel),
)

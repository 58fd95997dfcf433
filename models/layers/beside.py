"""Attention and a state space side by side: both see the same input, their outputs are added."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Memory, Part
from ggq.models.layers.mamba2 import Mamba2

__all__ = ["Beside"]


@dataclass(frozen=True)
class Beside(Part):
    """One layer's two mixers; it keeps keys and values as well as states."""

    attention: Attention
    space: Mamba2

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.attention, self.space

    @property
    def memory(self) -> Memory:
        return self.attention.memory._replace(states=self.space.memory.states)

    def for_context(self, n_ctx: int) -> Beside:
        return replace(self, attention=self.attention.for_context(n_ctx))

    def forward(self, ops: Any, x: Any) -> Any:
        return ops.add(self.attention.forward(ops, x), self.space.forward(ops, x))

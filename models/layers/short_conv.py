"""LFM2's gated short convolution: out(c * conv(b * x)), where b, c and x are made of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ggq.models.layers.base import Memory, Part, Values
from ggq.models.layers.linear import linear, split_linear
from ggq.models.table import Key, rows

__all__ = ["KEYS", "TENSORS", "ShortConvolution"]


@dataclass(frozen=True)
class ShortConvolution(Part):
    """A convolution of ``n_channels`` over ``kernel_size`` tokens."""

    n_channels: int
    kernel_size: int

    @classmethod
    def of(cls, values: Values, i: int) -> ShortConvolution:
        """Return layer ``i``'s convolution as a model's keys say."""
        return cls(values["n_embd"], values["conv_kernel"], layer=i)

    @property
    def dims(self) -> dict[str, int]:
        return {"channels": self.n_channels, "conv_kernel": self.kernel_size}

    @property
    def memory(self) -> Memory:
        return Memory(states=((self.kernel_size - 1) * self.n_channels, 0))

    def problem(self) -> str | None:
        if self.kernel_size < 2:
            return f"a convolution over {self.kernel_size} tokens"
        return None

    def forward(self, ops: Any, x: Any) -> Any:
        p, n = f"blk.{self.layer}.shortconv.", self.n_channels
        b, c, x = split_linear(ops, x, f"{p}in_proj", (n, n, n))
        y = ops.conv(ops.gate(b, x, kind="none"), f"{p}conv.weight", self.layer)
        return linear(ops, ops.gate(c, y, kind="none"), f"{p}out_proj")


KEYS = (Key("{arch}.shortconv.l_cache", ("conv_L_cache",), "conv_kernel", required=True),)
PLAIN: dict[str, Any] = {"part": ShortConvolution, "bias": False}
AHEAD: dict[str, Any] = {"input": "attn_in", "absorbs": "attn_norm"}
CONVOLVES: dict[str, Any] = {
    **{"role": "conv", "f32": True},
    "hf_shape": ("channels", "1", "conv_kernel"),
}
TENSORS = (
    *rows("shortconv.conv", "conv.conv", ("channels", "conv_kernel"), **CONVOLVES, **PLAIN),
    *rows("shortconv.in_proj", "conv.in_proj", ("3*embd", "embd"), role="other", **AHEAD, **PLAIN),
    *rows(
        "shortconv.out_proj",
        "conv.out_proj",
        ("embd", "embd"),
        role="other",
        input="conv_out",
        **PLAIN,
    ),
)

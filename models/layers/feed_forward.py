"""Feed-forward networks: gated ones, in two weights or one, and plain ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ggq.models.layers.base import Part, Values
from ggq.models.layers.linear import linear, rms_norm, split_linear
from ggq.models.table import Key, rows

__all__ = ["FUSED_TENSORS", "KEYS", "TENSORS", "UNGATED_TENSORS", "FeedForward", "gated", "width"]


@dataclass(frozen=True)
class FeedForward(Part):
    """down(act(gate(x)) * up(x)), or down(act(up(x))) where it is not ``gated``.

    ``fused``: the weight called up holds the gate's rows before its own. ``xielu``: the numbers of
    xIELU, which is the activation then. ``sparsity``: how many deviations above their mean gates
    must lie to stay, None: all stay. ``sub_norm_eps``: that of an RMS norm before down, 0: none.
    """

    n_ff: int
    activation: str = "silu"
    gated: bool = True
    fused: bool = False
    xielu: tuple[float, ...] = ()
    sparsity: float | None = None
    sub_norm_eps: float = 0.0

    @classmethod
    def of(cls, values: Values, i: int, **own: Any) -> FeedForward:
        """Return layer ``i``'s network as a model's keys say; ``own``: what they do not."""
        return cls(width(values, i), layer=i, **own)

    @property
    def dims(self) -> dict[str, int]:
        return {"ff": self.n_ff}

    def problem(self) -> str | None:
        return None if self.n_ff > 0 else f"feed-forward width is {self.n_ff}"

    def forward(self, ops: Any, x: Any) -> Any:
        p = f"blk.{self.layer}.ffn_"
        if self.fused:
            gate, up = split_linear(ops, x, f"{p}up", (self.n_ff, self.n_ff))
            return linear(ops, ops.gate(gate, up, kind=self.activation), f"{p}down")
        if self.gated:
            gate, up = linear(ops, x, f"{p}gate"), linear(ops, x, f"{p}up")
            gate = gate if self.sparsity is None else ops.sparsify(gate, self.sparsity)
            y = gated(ops, gate, up, self.activation)
            if self.sub_norm_eps:
                y = rms_norm(ops, y, f"{p}sub_norm", self.sub_norm_eps)
            return linear(ops, y, f"{p}down")
        up = linear(ops, x, f"{p}up")
        up = ops.xielu(up, *self.xielu) if self.xielu else ops.activate(up, self.activation)
        return linear(ops, up, f"{p}down")


def gated(ops: Any, gate: Any, up: Any, activation: str) -> Any:
    """Return act(gate) * up."""
    if activation in ("relu", "relu2"):  # rare as a gate: two operations
        return ops.gate(ops.activate(gate, activation), up, kind="none")
    return ops.gate(gate, up, kind=activation)


def width(values: Values, i: int) -> int:
    """Return the columns between the weights of layer ``i``."""
    return int(values.at("n_ff", i, "feed-forward"))


KEYS = (Key("{arch}.feed_forward_length", ("intermediate_size",), "n_ff", "u32s", required=True),)
AHEAD: dict[str, Any] = {"input": "ffn_in", "absorbs": "ffn_norm", "part": FeedForward}
AFTER: dict[str, Any] = {"input": "ffn_act", "absorbs": "ffn_up", "part": FeedForward}
TENSORS = (
    *rows("ffn_gate", "mlp.gate_proj", ("ff", "embd"), **AHEAD),
    *rows("ffn_up", "mlp.up_proj", ("ff", "embd"), **AHEAD),
    *rows("ffn_down", "mlp.down_proj", ("embd", "ff"), **AFTER),
)
# Gate and up in one weight: its rows are two parts, which take over no scale.
FUSED_TENSORS = (
    *rows("ffn_up", "mlp.gate_up_proj", ("2*ff", "embd"), **AHEAD),
    *rows("ffn_down", "mlp.down_proj", ("embd", "ff"), **{**AFTER, "absorbs": None}),
)
UNGATED_TENSORS = (
    *rows("ffn_up", "mlp.up_proj", ("ff", "embd"), **AHEAD),
    *rows("ffn_down", "mlp.down_proj", ("embd", "ff"), **{**AFTER, "absorbs": None}),
)

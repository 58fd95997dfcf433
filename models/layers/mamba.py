"""Mamba (arXiv 2312.00752): a short convolution, then a selective state space per channel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ggq.models.layers.base import Memory, Part, Values
from ggq.models.layers.linear import linear, optional, rms_norm, split_linear
from ggq.models.table import BLOCK, LAYER, Key, Tensor

__all__ = ["KEYS", "TENSORS", "Mamba", "step_rank"]

PLAIN_EPS = 1e-6  # of norms without weights, whatever the model's other norms have


@dataclass(frozen=True)
class Mamba(Part):
    """``n_channels`` states of ``d_state`` values each; ``a`` and ``d`` name tensors.

    The first four are what the operation reads. Before it a convolution over ``kernel_size`` tokens
    mixes the channels, which then make ``step_rank`` columns of the time steps, and B and C: all
    three are normed where the file holds weights of norms or ``plain_norms`` says so.
    """

    n_channels: int
    d_state: int
    a: str = ""
    d: str = ""
    step_rank: int = 0
    kernel_size: int = 0
    plain_norms: bool = False
    norm_eps: float = 0.0

    @classmethod
    def of(cls, values: Values, i: int) -> Mamba:
        """Return layer ``i``'s state space as a model's keys say."""
        return cls(
            values["ssm_inner"],
            values["ssm_state"],
            a=f"blk.{i}.ssm_a",
            d=f"blk.{i}.ssm_d",
            step_rank=values["step_rank"],
            kernel_size=values["conv_kernel"],
            plain_norms=values.get("plain_norms") or False,
            norm_eps=values["norm_eps"],
            layer=i,
        )

    @property
    def dims(self) -> dict[str, int]:
        return {
            "channels": self.n_channels,
            "conv_kernel": self.kernel_size,
            "ssm_state": self.d_state,
            "step_rank": self.step_rank,
            "ssm_x": self.step_rank + 2 * self.d_state,
        }

    @property
    def memory(self) -> Memory:
        held = (self.kernel_size - 1) * self.n_channels
        return Memory(states=(held, self.n_channels * self.d_state))

    def problem(self) -> str | None:
        if self.kernel_size < 2:
            return f"a convolution over {self.kernel_size} tokens"
        sizes = (self.n_channels, self.d_state, self.step_rank)
        return f"channels, states and steps of {sizes}" if min(sizes) < 1 else None

    def forward(self, ops: Any, x: Any) -> Any:
        p, i, n = f"blk.{self.layer}.ssm_", self.layer, self.n_channels
        x, gate = split_linear(ops, x, f"{p}in", (n, n))
        bias = optional(ops, f"{p}conv1d.bias")
        x = ops.conv(x, f"{p}conv1d.weight", i, kind="silu", bias=bias)
        widths = (self.step_rank, self.d_state, self.d_state)
        dt, b, c = split_linear(ops, x, f"{p}x", widths)
        dt, b, c = (self._normed(ops, v, f"{p}{n}") for v, n in zip((dt, b, c), NAMES, strict=True))
        y = ops.channel_scan(x, linear(ops, dt, f"{p}dt"), b, c, i, self)
        return linear(ops, ops.gate(gate, y, kind="silu"), f"{p}out")

    def _normed(self, ops: Any, x: Any, name: str) -> Any:
        if ops.has(f"{name}_norm.weight"):
            return rms_norm(ops, x, f"{name}_norm", self.norm_eps)
        return ops.norm(x, None, PLAIN_EPS, kind="rms") if self.plain_norms else x


NAMES = ("dt", "b", "c")


def step_rank(name: str) -> Any:
    """Return a derive function: the rank ``name`` of time steps, by default a 16th of the width."""

    def rank(config: Mapping[str, Any]) -> int:
        given = config.get(name)
        return given if isinstance(given, int) else -(-config["hidden_size"] // 16)

    return rank


KEYS = (
    Key("{arch}.ssm.conv_kernel", ("mamba_d_conv",), "conv_kernel", required=True),
    Key("{arch}.ssm.state_size", ("mamba_d_state",), "ssm_state", required=True),
    Key(
        "{arch}.ssm.inner_size",
        (),
        "ssm_inner",
        required=True,
        derive=lambda config: config["mamba_expand"] * config["hidden_size"],
    ),
    Key(
        "{arch}.ssm.time_step_rank",
        (),
        "step_rank",
        required=True,
        derive=step_rank("mamba_dt_rank"),
    ),
)


def _row(
    name: str, hf: str, shape: tuple[str, ...], transform: str = "copy", **more: Any
) -> Tensor:
    source = (f"{LAYER}mamba.{hf}",)
    return Tensor(f"{BLOCK}ssm_{name}", source, shape, transform, part=Mamba, **more)


AHEAD = {"input": "attn_in", "absorbs": f"{BLOCK}attn_norm.weight"}
KEPT: dict[str, Any] = {"role": "kept", "f32": True}
BIAS: dict[str, Any] = {"role": "bias", "f32": True}
NORM: dict[str, Any] = {"role": "norm", "f32": True, "optional": True}
CONV, STORED = ("channels", "conv_kernel"), ("channels", "1", "conv_kernel")
TENSORS = (
    _row("in.weight", "in_proj.weight", ("2*channels", "embd"), **AHEAD),
    _row("conv1d.weight", "conv1d.weight", CONV, hf_shape=STORED, **KEPT),
    _row("conv1d.bias", "conv1d.bias", ("channels",), optional=True, **BIAS),
    _row("x.weight", "x_proj.weight", ("ssm_x", "channels"), input="ssm_x"),
    _row("dt.weight", "dt_proj.weight", ("channels", "step_rank"), input="ssm_dt"),
    _row("dt.bias", "dt_proj.bias", ("channels",), **BIAS),
    _row("dt_norm.weight", "dt_layernorm.weight", ("step_rank",), **NORM),
    _row("b_norm.weight", "b_layernorm.weight", ("ssm_state",), **NORM),
    _row("c_norm.weight", "c_layernorm.weight", ("ssm_state",), **NORM),
    _row("a", "A_log", ("channels", "ssm_state"), "negative_exp", **KEPT),
    _row("d", "D", ("channels",), **KEPT),
    _row("out.weight", "out_proj.weight", ("embd", "channels"), input="ssm_out"),
)

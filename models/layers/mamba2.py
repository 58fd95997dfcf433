"""Mamba-2 (arXiv 2405.21060): a short convolution, then a selective state space per head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ggq.models.layers.base import Memory, Part, Values
from ggq.models.layers.linear import linear, optional, rms_norm, split_linear
from ggq.models.table import BLOCK, LAYER, Key, Tensor
from ggq.models.transform import Transform

__all__ = ["KEYS", "TENSORS", "TRANSFORMS", "Mamba2", "limits"]


@dataclass(frozen=True)
class Mamba2(Part):
    """``n_head`` states of d_state x head_dim each; ``a``, ``d`` and ``bias`` name tensors.

    The first seven are what the operation reads. Before it a convolution over ``kernel_size``
    tokens mixes the inputs and the B and C of ``n_group`` groups of heads. The norm before the last
    weight, of each group by itself, is there where the file holds it.
    """

    n_head: int
    head_dim: int
    n_group: int
    d_state: int
    a: str = ""
    d: str = ""
    bias: str = ""
    kernel_size: int = 0
    norm_eps: float = 0.0

    @classmethod
    def of(cls, values: Values, i: int) -> Mamba2:
        """Return layer ``i``'s state space as a model's keys say."""
        n_head = values["ssm_heads"] or 0
        return cls(
            n_head,
            values["ssm_inner"] // max(n_head, 1),
            values["ssm_groups"],
            values["ssm_state"],
            a=f"blk.{i}.ssm_a",
            d=f"blk.{i}.ssm_d",
            bias=f"blk.{i}.ssm_dt.bias",
            kernel_size=values["conv_kernel"],
            norm_eps=values["norm_eps"],
            layer=i,
        )

    @property
    def inner(self) -> int:
        """The columns of all heads."""
        return self.n_head * self.head_dim

    @property
    def dims(self) -> dict[str, int]:
        channels = self.inner + 2 * self.n_group * self.d_state
        return {
            "channels": channels,
            "conv_kernel": self.kernel_size,
            "ssm_heads": self.n_head,
            "ssm_groups": self.n_group,
            "ssm_group": self.inner // self.n_group,
            "ssm_inner": self.inner,
            "ssm_in": self.inner + channels + self.n_head,
        }

    @property
    def memory(self) -> Memory:
        held = (self.kernel_size - 1) * self.dims["channels"]
        return Memory(states=(held, self.inner * self.d_state))

    def problem(self) -> str | None:
        if self.kernel_size < 2:
            return f"a convolution over {self.kernel_size} tokens"
        sizes = (self.n_head, self.head_dim, self.n_group, self.d_state)
        if min(sizes) < 1 or self.n_head % self.n_group:
            return f"{self.n_head} heads of {self.head_dim} over {self.n_group} states"
        return None

    def forward(self, ops: Any, x: Any) -> Any:
        p, i = f"blk.{self.layer}.ssm_", self.layer
        widths = (self.inner, self.dims["channels"], self.n_head)
        gate, mixed, dt = split_linear(ops, x, f"{p}in", widths)
        bias = optional(ops, f"{p}conv1d.bias")
        mixed = ops.conv(mixed, f"{p}conv1d.weight", i, kind="silu", bias=bias)
        y = ops.gate(gate, ops.scan(mixed, dt, i, self), kind="silu")
        if ops.has(f"{p}norm.weight"):
            y = rms_norm(ops, y, f"{p}norm", self.norm_eps, self.inner // self.n_group)
        return linear(ops, y, f"{p}out")


KEYS = (
    Key("{arch}.ssm.conv_kernel", ("mamba_d_conv",), "conv_kernel", required=True),
    Key("{arch}.ssm.state_size", ("mamba_d_state",), "ssm_state", required=True),
    Key("{arch}.ssm.group_count", ("mamba_n_groups",), "ssm_groups", required=True),
    Key(
        "{arch}.ssm.inner_size",
        (),
        "ssm_inner",
        required=True,
        derive=lambda config: config["mamba_expand"] * config["hidden_size"],
    ),
    Key("{arch}.ssm.time_step_rank", ("mamba_n_heads",), "ssm_heads", required=True),
)


def _row(
    name: str, hf: str, shape: tuple[str, ...], transform: str = "copy", **more: Any
) -> Tensor:
    source = (f"{LAYER}mamba.{hf}",)
    return Tensor(f"{BLOCK}ssm_{name}", source, shape, transform, part=Mamba2, **more)


AHEAD = {"input": "attn_in", "absorbs": f"{BLOCK}attn_norm.weight"}
KEPT: dict[str, Any] = {"role": "kept", "f32": True}
CONV, COLUMN = ("channels", "conv_kernel"), ("ssm_heads", "1")
GROUPS = ("ssm_groups", "ssm_group")
VECTOR: dict[str, Any] = {"hf_shape": ("ssm_heads",)}
TENSORS = (
    _row("in.weight", "in_proj.weight", ("ssm_in", "embd"), **AHEAD),
    _row("conv1d.weight", "conv1d.weight", CONV, hf_shape=("channels", "1", "conv_kernel"), **KEPT),
    _row("conv1d.bias", "conv1d.bias", ("channels",), optional=True, role="bias", f32=True),
    _row("dt.bias", "dt_bias", ("ssm_heads",), role="bias", f32=True),
    _row("a", "A_log", COLUMN, "negative_exp", **VECTOR, **KEPT),
    _row("d", "D", COLUMN, **VECTOR, **KEPT),
    _row("norm.weight", "norm.weight", GROUPS, optional=True, hf_shape=("ssm_inner",), **KEPT),
    _row("out.weight", "out_proj.weight", ("embd", "ssm_inner"), input="ssm_out"),
)


# [0, inf] as Python's JSON and as transformers write it
UNLIMITED = ("[0.0,inf]", "(0.0,inf)", "[0.0,{'__float__':'Infinity'}]", "[0.0,'Infinity']")


def limits(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield a limit of time steps, which files cannot say, as what conflicts."""
    limit = config.get("time_step_limit")
    if limit is not None and str(limit).replace(" ", "") not in UNLIMITED:
        yield "time_step_limit", limit, "time steps are not limited here"


TRANSFORMS = {
    "negative_exp": Transform(values=lambda x: -np.exp(x), undo_values=lambda x: np.log(-x)),
}

"""Gated DeltaNet (arXiv 2412.06464): a linear recurrence whose state learns by the delta rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ggq.models.hparams import HParams
from ggq.models.layers.base import Memory, Part, Values
from ggq.models.layers.linear import linear, rms_norm
from ggq.models.table import BLOCK, LAYER, Key, Tensor
from ggq.models.transform import RowMap, Transform

__all__ = ["GROUPED_TENSORS", "KEYS", "TENSORS", "TRANSFORMS", "DeltaNet"]


@dataclass(frozen=True)
class DeltaNet(Part):
    """``n_head`` states of head_dim x head_dim_v each; ``a`` and ``dt`` name tensors.

    The first seven are what the operation reads: ``grouped`` value heads are neighbours where they
    share a key head. Before it a convolution over ``kernel_size`` tokens
    mixes ``n_channels``: queries and keys of ``n_key_heads``, then the values.
    """

    n_head: int
    n_key_heads: int
    head_dim: int
    head_dim_v: int
    a: str = ""
    dt: str = ""
    grouped: bool = False
    kernel_size: int = 0
    n_channels: int = 0
    norm_eps: float = 0.0

    @classmethod
    def of(cls, values: Values, i: int, grouped: bool = False) -> DeltaNet:
        """Return layer ``i``'s recurrence as a model's keys say."""
        heads, keys = values["delta_heads"], values["delta_key_heads"]
        width, inner = values["delta_dim"], values["delta_inner"]
        return cls(
            heads,
            keys,
            width,
            inner // max(heads, 1),
            a=f"blk.{i}.ssm_a",
            dt=f"blk.{i}.ssm_dt.bias",
            grouped=grouped,
            kernel_size=values["conv_kernel"],
            n_channels=2 * keys * width + inner,
            norm_eps=values["norm_eps"],
            layer=i,
        )

    @property
    def dims(self) -> dict[str, int]:
        return {
            "channels": self.n_channels,
            "conv_kernel": self.kernel_size,
            "delta_heads": self.n_head,
            "delta_head": self.head_dim_v,
            "delta_v": self.n_head * self.head_dim_v,
        }

    @property
    def memory(self) -> Memory:
        held = (self.kernel_size - 1) * self.n_channels
        return Memory(states=(held, self.n_head * self.head_dim * self.head_dim_v))

    def problem(self) -> str | None:
        if self.kernel_size < 2:
            return f"a convolution over {self.kernel_size} tokens"
        sizes = (self.n_head, self.n_key_heads, self.head_dim, self.head_dim_v)
        if min(sizes) < 1 or self.n_head % self.n_key_heads:
            return f"{self.n_head} heads of state over {self.n_key_heads} key heads"
        made = 2 * self.n_key_heads * self.head_dim + self.n_head * self.head_dim_v
        if self.n_channels != made:
            return f"{self.n_channels} channels for heads of {sizes}"
        return None

    def forward(self, ops: Any, x: Any) -> Any:
        p, i = f"blk.{self.layer}.", self.layer
        mixed = ops.conv(linear(ops, x, f"{p}attn_qkv"), f"{p}ssm_conv1d.weight", i, kind="silu")
        alpha, beta = self._rates(ops, x)
        y = ops.delta(mixed, alpha, beta, i, self)
        y = rms_norm(ops, y, f"{p}ssm_norm", self.norm_eps, self.head_dim_v)
        return linear(ops, ops.gate(linear(ops, x, f"{p}attn_gate"), y, kind="silu"), f"{p}ssm_out")

    def _rates(self, ops: Any, x: Any) -> tuple[Any, Any]:
        """Return what decays and rates are made of: two weights' or, by key head, one's outputs."""
        p, each = f"blk.{self.layer}.ssm_", self.n_head // self.n_key_heads
        if not ops.has(f"{p}ba.weight"):
            return linear(ops, x, f"{p}alpha"), linear(ops, x, f"{p}beta")
        both = linear(ops, x, f"{p}ba")
        alpha = ops.columns(both, each, each, group=2 * each)
        return alpha, ops.columns(both, 0, each, group=2 * each)


def _inner(config: Mapping[str, Any]) -> int:
    return int(config["linear_value_head_dim"] * config["linear_num_value_heads"])


KEYS = (
    Key("{arch}.ssm.conv_kernel", ("linear_conv_kernel_dim",), "conv_kernel", required=True),
    Key("{arch}.ssm.state_size", ("linear_key_head_dim",), "delta_dim", required=True),
    Key("{arch}.ssm.group_count", ("linear_num_key_heads",), "delta_key_heads", required=True),
    Key("{arch}.ssm.time_step_rank", ("linear_num_value_heads",), "delta_heads", required=True),
    Key("{arch}.ssm.inner_size", (), "delta_inner", required=True, derive=_inner),
)


def _row(name: str, hf: str, shape: tuple[str, ...], transform: str, **more: Any) -> Tensor:
    source = (f"{LAYER}linear_attn.{hf}",)
    return Tensor(f"{BLOCK}{name}", source, shape, transform, part=DeltaNet, **more)


AHEAD = {"input": "attn_in", "absorbs": f"{BLOCK}attn_norm.weight"}
QKV, HEADS = ("channels", "embd"), ("delta_heads", "embd")
CONV, OUT = ("channels", "conv_kernel"), ("embd", "delta_v")
STORED = ("channels", "1", "conv_kernel")
CONVOLVES: dict[str, Any] = {"role": "conv", "f32": True, "hf_shape": STORED}
TENSORS = (
    _row("attn_qkv.weight", "in_proj_qkv.weight", QKV, "tile_qkv", role="attn_qkv", **AHEAD),
    _row("attn_gate.weight", "in_proj_z.weight", ("delta_v", "embd"), "tile_values", **AHEAD),
    _row("ssm_alpha.weight", "in_proj_a.weight", HEADS, "tile_heads", **AHEAD),
    _row("ssm_beta.weight", "in_proj_b.weight", HEADS, "tile_heads", **AHEAD),
    _row("ssm_a", "A_log", ("delta_heads",), "tile_decay", f32=True),
    _row("ssm_dt.bias", "dt_bias", ("delta_heads",), "tile_heads", f32=True),
    _row("ssm_conv1d.weight", "conv1d.weight", CONV, "tile_qkv", **CONVOLVES),
    _row("ssm_norm.weight", "norm.weight", ("delta_head",), "copy", f32=True),
    _row("ssm_out.weight", "out_proj.weight", OUT, "tile_columns", input="delta_out"),
)
# Qwen3-Next's: a weight of queries, keys, values and gates, one of the rates; HF's order of heads.
GROUPED_TENSORS = (
    _row("attn_qkv.weight", "in_proj_qkvz.weight", QKV, "delta_qkv", role="attn_qkv", **AHEAD),
    _row("attn_gate.weight", "in_proj_qkvz.weight", ("delta_v", "embd"), "delta_gate", **AHEAD),
    _row("ssm_ba.weight", "in_proj_ba.weight", ("2*delta_heads", "embd"), "copy", **AHEAD),
    _row("ssm_a", "A_log", ("delta_heads",), "negative_exp", f32=True),
    _row("ssm_dt.bias", "dt_bias", ("delta_heads",), "copy", f32=True),
    _row("ssm_conv1d.weight", "conv1d.weight", CONV, "copy", **CONVOLVES),
    _row("ssm_norm.weight", "norm.weight", ("delta_head",), "copy", f32=True),
    _row("ssm_out.weight", "out_proj.weight", OUT, "copy", input="delta_out"),
)


def _to_tiles(delta: DeltaNet, width: int, start: int) -> RowMap:
    """Map rows from ``start`` on of value heads in llama.cpp's order to HF's.

    HF has the value heads of a key head side by side; GGUF has the first ones of all key heads,
    then the second ones, so that value head h goes with key head h % n_key_heads.
    """
    keys = delta.n_key_heads

    def source(row: np.ndarray) -> np.ndarray:
        head, within = np.divmod(row - start, width)
        grouped = head % keys * (delta.n_head // keys) + head // keys
        return np.where(row < start, row, start + grouped * width + within)

    return source


def _to_groups(delta: DeltaNet, width: int, start: int) -> RowMap:
    """Invert `_to_tiles`."""
    each = delta.n_head // delta.n_key_heads

    def source(row: np.ndarray) -> np.ndarray:
        head, within = np.divmod(row - start, width)
        tiled = head % each * delta.n_key_heads + head // each
        return np.where(row < start, row, start + tiled * width + within)

    return source


def _tiled(width: Callable[[Any], int], start: Callable[[Any], int] = lambda d: 0) -> Transform:
    def rows(hp: HParams, by: Callable[..., RowMap]) -> RowMap:
        delta = hp.find(DeltaNet)
        return by(delta, width(delta), start(delta))

    return Transform(
        rows=lambda hp, i, n: rows(hp, _to_tiles),
        undo_rows=lambda hp, i, n: rows(hp, _to_groups),
    )


def _of_all(place: Callable[[DeltaNet, np.ndarray], np.ndarray]) -> Transform:
    """Return the transform that takes rows out of one weight of all; see `_qkv_row`."""

    def delta(hp: HParams, i: int) -> DeltaNet:
        part = hp.blocks[i].find(DeltaNet)
        assert part is not None
        return part

    return Transform(
        rows=lambda hp, i, n: lambda row: place(delta(hp, i), row),
        whole=lambda hp, i: (lambda d: d.n_channels + d.n_head * d.head_dim_v)(delta(hp, i)),
    )


def _sizes(delta: DeltaNet) -> tuple[int, int, int]:
    """Return the rows of a key head's queries or keys, of its values, and of all it has."""
    values = delta.n_head // delta.n_key_heads * delta.head_dim_v
    return delta.head_dim, values, 2 * delta.head_dim + 2 * values


def _qkv_row(delta: DeltaNet, row: np.ndarray) -> np.ndarray:
    """Return where rows of queries, keys and values lie: key head by key head, gates behind."""
    key, values, pitch = _sizes(delta)
    all_keys = delta.n_key_heads * key
    part = np.minimum(row // all_keys, 2)  # queries, keys, values
    width = np.where(part < 2, key, values)
    head, within = np.divmod(row - part * all_keys, width)
    place: np.ndarray = head * pitch + part * key + within
    return place


def _gate_row(delta: DeltaNet, row: np.ndarray) -> np.ndarray:
    """Return where rows of gates lie; see `_qkv_row`."""
    key, values, pitch = _sizes(delta)
    head, within = np.divmod(row, values)
    place: np.ndarray = head * pitch + 2 * key + values + within
    return place


def _value_columns(hp: HParams, by: Callable[..., RowMap]) -> RowMap:
    delta = hp.find(DeltaNet)
    assert delta is not None
    return by(delta, delta.head_dim_v, 0)


TRANSFORMS = {
    "delta_qkv": _of_all(_qkv_row),
    "delta_gate": _of_all(_gate_row),
    "tile_qkv": _tiled(lambda d: d.head_dim_v, lambda d: 2 * d.n_key_heads * d.head_dim),
    "tile_values": _tiled(lambda d: d.head_dim_v),
    "tile_heads": _tiled(lambda d: 1),
    "tile_decay": replace(
        _tiled(lambda d: 1),
        values=lambda x: -np.exp(x),
        undo_values=lambda x: np.log(-x),
    ),
    "tile_columns": Transform(
        columns=lambda hp: _value_columns(hp, _to_tiles),
        undo_columns=lambda hp: _value_columns(hp, _to_groups),
    ),
}

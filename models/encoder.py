"""Encoders of the BERT family: every token sees all of its text, norms follow what they norm.

Their forward pass ends with hidden states: they embed texts and write none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.errors import ModelError, printable
from ggq.models.base import Architecture, HParams, Key, Tensor
from ggq.models.blocks import attention, linear
from ggq.models.keys import POOLING

__all__ = ["ENCODER_KEYS", "Encoder", "encoder", "encoder_norm", "encoder_rows"]

BLOCK = "blk.{i}."
ENCODER_KEYS = (
    Key("{arch}.block_count", ("num_hidden_layers", "n_layer"), "n_layer", required=True),
    Key("{arch}.context_length", ("max_position_embeddings",), "n_ctx_train", required=True),
    Key("{arch}.embedding_length", ("hidden_size", "n_embd"), "n_embd", required=True),
    Key(
        "{arch}.feed_forward_length",
        ("intermediate_size", "n_inner"),
        "n_ff",
        "u32s",
        required=True,
    ),
    Key(
        "{arch}.attention.head_count",
        ("num_attention_heads", "n_head"),
        "n_head",
        "u32s",
        required=True,
    ),
    Key(
        "{arch}.attention.layer_norm_epsilon",
        ("layer_norm_eps", "layer_norm_epsilon"),
        "norm_eps",
        "f32",
        required=True,
    ),
    Key(
        "{arch}.attention.causal", (), "causal", "bool", default=False, derive=lambda config: False
    ),
    Key("{arch}.pooling_type", (POOLING,), "pooling"),
)


def encoder_norm(gguf: str, *hf: str, dim: str = "embd") -> tuple[Tensor, Tensor]:
    """Return the rows of a LayerNorm's gain and bias; some checkpoints say gamma and beta."""
    (name,) = hf
    both = (("weight", "gamma"), ("bias", "beta"))
    return tuple(
        Tensor(
            f"{gguf}.{new}",
            (f"{name}.{new}",),
            (dim,),
            role="norm" if new == "weight" else "bias",
            f32=True,
            fused=(f"{name}.{old}", "copy"),
        )
        for new, old in both
    )


def encoder_rows(gguf: str, hf: str, shape: tuple[str, str], label: str) -> tuple[Tensor, Tensor]:
    """Return the rows of a layer's weight and of its optional bias."""
    weight = Tensor(f"{BLOCK}{gguf}.weight", (f"{hf}.weight",), shape, role=gguf, input=label)
    bias = Tensor(
        f"{BLOCK}{gguf}.bias", (f"{hf}.bias",), shape[:1], role="bias", optional=True, f32=True
    )
    return weight, bias


def _normed(ops: Any, x: Any, name: str, hp: HParams) -> Any:
    return ops.shift(ops.norm(x, f"{name}.weight", hp.norm_eps, kind="layer"), f"{name}.bias")


def _fed(ops: Any, x: Any, hp: HParams, i: int) -> Any:
    p = f"blk.{i}.ffn_"
    y = linear(ops, x, f"{p}up")
    if ops.has(f"{p}gate.weight"):
        y = ops.gate(linear(ops, x, f"{p}gate"), y, kind=hp.activation)
    else:
        y = ops.activate(y, hp.activation)
    return linear(ops, y, f"{p}down")


def encoder(ops: Any, hp: HParams) -> Any:
    """Return the hidden states of the gathered rows, (n_gathered, n_embd)."""
    x = ops.embed("token_embd.weight")
    if ops.has("token_types.weight"):  # every text is a first part
        x = ops.shift(x, "token_types.weight")
    if ops.has("position_embd.weight"):
        x = ops.add(x, ops.embed("position_embd.weight", of="positions"))
    x = _normed(ops, x, "token_embd_norm", hp)
    for i in range(hp.n_layer):
        p = f"blk.{i}."
        x = _normed(ops, ops.add(x, attention(ops, x, hp, i)), f"{p}attn_output_norm", hp)
        x = _normed(ops, ops.add(x, _fed(ops, x, hp, i)), f"{p}layer_output_norm", hp)
    return ops.gather(x)


class Encoder(Architecture):
    """An architecture whose forward pass is `encoder`."""

    needs: Mapping[str, Any] = {}  # settings of config.json that alone are supported

    def forward(self, ops: Any, hp: HParams) -> Any:
        return encoder(ops, hp)

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        """Tell whether a tensor is no part of the encoder: heads, the pooler, buffers."""
        heads = ("pooler.", "cls.", "position_ids", "token_type_ids", "classifier.")
        return super().ignores(hf_name, hp) or any(part in hf_name for part in heads)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        for name, value in self.needs.items():
            if flat.get(name, value) != value:
                given = printable(repr(flat[name]))
                raise ModelError(f"{self.name}: {name} is {given}, only {value} is supported")
        return flat

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return {"type_vocab_size": hp.n_token_types, "pad_token_id": 0}

    def _values_hf(self, config: Mapping[str, Any]) -> dict[str, Any]:
        values = super()._values_hf(config)
        return values | {"n_token_types": self.config(config).get("type_vocab_size") or 0}

    def _values_gguf(self, source: Any) -> dict[str, Any]:
        values, types = super()._values_gguf(source), source.tensors.get("token_types.weight")
        return values | {"n_token_types": int(types.shape[0]) if types is not None else 0}

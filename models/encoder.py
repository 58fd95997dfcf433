"""Encoders of the BERT family: every token sees all of its text, norms follow what they norm.

Their forward pass ends with hidden states: they embed texts and write none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ggq.models.base import Architecture
from ggq.models.hparams import HParams
from ggq.models.layers.linear import layer_norm
from ggq.models.pooled import POOLED_KEYS
from ggq.models.table import Key, Tensor
from ggq.models.vocabulary import Vocabulary

__all__ = ["ENCODER_KEYS", "Encoder", "embedded", "embedding", "encode", "encoder_norm"]

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
    *POOLED_KEYS,
)


def embedding(gguf: str, hf: str, n_rows: str, **more: Any) -> Tensor:
    """Return the row of one of the embeddings that are added."""
    source = f"embeddings.{hf}_embeddings.weight"
    return Tensor(f"{gguf}.weight", (source,), (n_rows, "embd"), **more)


def encoder_norm(gguf: str, hf: str) -> tuple[Tensor, Tensor]:
    """Return the rows of a LayerNorm's gain and bias; some checkpoints say gamma and beta."""
    gain = Tensor(f"{gguf}.weight", (f"{hf}.weight",), ("embd",), role="norm", f32=True)
    bias = replace(gain, gguf=f"{gguf}.bias", hf=(f"{hf}.bias",), role="bias")
    return replace(gain, fused=(f"{hf}.gamma", "copy")), replace(bias, fused=(f"{hf}.beta", "copy"))


def embedded(ops: Any) -> Any:
    """Return the tokens' embeddings plus, where a model has them, those of their parts' types."""
    x = ops.embed("token_embd.weight")
    if not ops.has("token_types.weight"):
        return x
    return ops.add(x, ops.embed("token_types.weight", of="types"))


def encode(ops: Any, x: Any, hp: HParams) -> Any:
    """Return the hidden states of the gathered rows, (n_gathered, n_embd)."""
    x, eps = layer_norm(ops, x, "token_embd_norm", hp.norm_eps), hp.norm_eps
    for layer in hp.layers:
        p = layer.prefix
        x = layer_norm(ops, ops.add(x, layer.mixer.forward(ops, x)), f"{p}attn_output_norm", eps)
        x = layer_norm(ops, ops.add(x, layer.feed.forward(ops, x)), f"{p}layer_output_norm", eps)
    return ops.gather(x)


class Encoder(Architecture):
    """What BERT and its like share."""

    vocab = Vocabulary(counts_types=True)
    reads: ClassVar[tuple[str, ...]] = (
        "num_key_value_heads",
        "vocab_size",
        "layer_norm_epsilon",
        "type_vocab_size",
        "pad_token_id",
    )

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        """Tell whether a tensor is no part of the encoder: heads, the pooler, buffers."""
        heads = ("pooler.", "cls.", "position_ids", "token_type_ids", "lm_head.", "classifier.")
        return super().ignores(hf_name, hp) or any(part in hf_name for part in heads)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return {"type_vocab_size": hp.n_token_types, "pad_token_id": 0}

    def _values_hf(self, config: Mapping[str, Any]) -> dict[str, Any]:
        values = super()._values_hf(config)
        return values | {"n_token_types": self.config(config).get("type_vocab_size") or 0}

    def _values_gguf(self, source: Any) -> dict[str, Any]:
        values, types = super()._values_gguf(source), source.tensors.get("token_types.weight")
        return values | {"n_token_types": int(types.shape[0]) if types is not None else 0}

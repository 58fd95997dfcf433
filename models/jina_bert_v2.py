"""jina-embeddings-v2: BERT with ALiBi to both sides and gated feed-forwards, gate and up in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ggq.models.encoder import ENCODER_KEYS, Encoder, embedded, embedding, encode, encoder_norm
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import Tensor, rows

__all__ = ["ARCHITECTURE"]

ALIBI = 8.0  # no key says it
LAYER = "encoder.layer.{i}."
SELF, AFTER = f"{LAYER}attention.self.", f"{LAYER}attention.output."
GATE = "ffn_gate.weight"  # older files hold it apart


class JinaBertV2(Encoder):
    name = "jina-bert-v2"
    hf_classes = ("JinaBertModel", "JinaBertForMaskedLM")
    hf_model_type = "bert"
    hf_prefixes = ("", "bert.")
    exports = False  # transformers has no class for it
    keys = ENCODER_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 8192,
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "feed_forward_type": "geglu",
        "position_embedding_type": "alibi",
    }
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ("gelu",),
        "feed_forward_type": ("geglu",),
        "position_embedding_type": ("alibi",),
        "emb_pooler": ("mean", None),
        "is_decoder": (False,),
    }
    reads = (*Encoder.reads, "attn_implementation", "model_max_length")
    tensors = (
        embedding("token_embd", "word", "vocab", role="token_embd"),
        embedding("token_types", "token_type", "token_types", f32=True, role="kept", optional=True),
        *encoder_norm("token_embd_norm", "embeddings.LayerNorm"),
        *rows("attn_q", f"{SELF}query", ("q", "embd"), input="attn_in"),
        *rows("attn_k", f"{SELF}key", ("k", "embd"), input="attn_in"),
        *rows("attn_v", f"{SELF}value", ("v", "embd"), input="attn_in"),
        *rows("attn_output", f"{AFTER}dense", ("embd", "o"), input="attn_out"),
        *encoder_norm("blk.{i}.attn_output_norm", f"{AFTER}LayerNorm"),
        *rows("ffn_gate", "", ("ff", "embd"), bias=False, input="ffn_in"),
        *rows("ffn_up", f"{LAYER}mlp.gated_layers", ("2*ff", "embd"), bias=False, input="ffn_in"),
        *rows("ffn_down", f"{LAYER}mlp.wo", ("embd", "ff"), input="ffn_act"),
        *encoder_norm("blk.{i}.layer_output_norm", f"{LAYER}mlp.layernorm"),
    )

    def rows(self, hp: HParams) -> Iterator[tuple[str, Tensor, int | None]]:
        feed = hp.find(FeedForward)
        fused = feed is not None and feed.fused
        for name, row, i in super().rows(hp):
            if not fused and row.shape[0] == "2*ff":
                yield name, replace(row, shape=("ff", "embd")), i
            elif not (fused and name.endswith(GATE)):
                yield name, row, i

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, None, causal=values["causal"], alibi=ALIBI)
        return Layer(mixer, FeedForward.of(values, i, activation="gelu", fused=values["fused"]))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return encode(ops, embedded(ops), hp)

    def _values_hf(self, config: Any) -> dict[str, Any]:
        return super()._values_hf(config) | {"fused": True}

    def _values_gguf(self, source: Any) -> dict[str, Any]:
        return super()._values_gguf(source) | {"fused": f"blk.0.{GATE}" not in source.tensors}


ARCHITECTURE = JinaBertV2()

"""BERT and what was made of it: sentence-transformers, BGE, E5, GTE, MiniLM."""

from __future__ import annotations

from typing import Any

from ggq.models.encoder import ENCODER_KEYS, Encoder, embedding, encode, encoder_norm
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import rows

__all__ = ["ARCHITECTURE"]

LAYER = "encoder.layer.{i}."
SELF, AFTER = f"{LAYER}attention.self.", f"{LAYER}attention.output."


def forward(ops: Any, hp: HParams) -> Any:
    """Return hidden states: three embeddings added, then the layers."""
    x = ops.embed("token_embd.weight")
    if ops.has("token_types.weight"):  # every text is a first part
        x = ops.shift(x, "token_types.weight")
    x = ops.add(x, ops.embed("position_embd.weight", of="positions"))
    return encode(ops, x, hp)


class Bert(Encoder):
    name = "bert"
    hf_classes = ("BertModel", "BertForMaskedLM")
    hf_model_type = "bert"
    hf_prefixes = ("", "bert.")
    keys = ENCODER_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
    }
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
    }
    tensors = (
        embedding("token_embd", "word", "vocab", role="token_embd"),
        embedding("position_embd", "position", "positions", f32=True, role="kept"),
        embedding("token_types", "token_type", "token_types", f32=True, role="kept", optional=True),
        *encoder_norm("token_embd_norm", "embeddings.LayerNorm"),
        *rows("attn_q", f"{SELF}query", ("q", "embd"), input="attn_in"),
        *rows("attn_k", f"{SELF}key", ("k", "embd"), input="attn_in"),
        *rows("attn_v", f"{SELF}value", ("v", "embd"), input="attn_in"),
        *rows("attn_output", f"{AFTER}dense", ("embd", "o"), input="attn_out"),
        *encoder_norm("blk.{i}.attn_output_norm", f"{AFTER}LayerNorm"),
        *rows("ffn_up", f"{LAYER}intermediate.dense", ("ff", "embd"), input="ffn_in"),
        *rows("ffn_down", f"{LAYER}output.dense", ("embd", "ff"), input="ffn_act"),
        *encoder_norm("blk.{i}.layer_output_norm", f"{LAYER}output.LayerNorm"),
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, None, causal=values["causal"])
        return Layer(mixer, FeedForward.of(values, i, activation="gelu", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)


ARCHITECTURE = Bert()

"""BLOOM and BLOOMZ: ALiBi instead of positions, a LayerNorm after the embedding, tanh GELU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.models import starcoder2
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD
from ggq.models.encoder import encoder_norm
from ggq.models.gpt2 import ff_key
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import UNGATED_TENSORS, FeedForward
from ggq.models.layers.linear import layer_norm
from ggq.models.table import BLOCK, LAYER, Key, changed, each_head, renamed, sourced

__all__ = ["ARCHITECTURE", "NAMES"]

ALIBI = 8.0  # no key says it
SETTINGS = {"num_hidden_layers": "n_layer", "max_position_embeddings": "seq_length"}
NAMES = {
    "model.embed_tokens": "transformer.word_embeddings",
    "model.norm": "transformer.ln_f",
    "model.layers": "transformer.h",
    "self_attn.qkv_proj": "self_attention.query_key_value",
    "self_attn.o_proj": "self_attention.dense",
    "up_proj": "dense_h_to_4h",
    "down_proj": "dense_4h_to_h",
}


class Bloom(Architecture):
    name = "bloom"
    hf_classes = ("BloomForCausalLM", "BloomModel")
    hf_model_type = "bloom"
    hf_base = "transformer."
    keys = changed(
        sourced(DECODER_KEYS, SETTINGS),
        ff_key("hidden_size"),
        Key(
            "{arch}.attention.head_count",
            ("n_head", "num_attention_heads"),
            "n_head",
            "u32s",
            required=True,
        ),
        Key("{arch}.attention.head_count_kv", (), "n_head_kv", "u32s"),
        Key(
            "{arch}.attention.layer_norm_epsilon", ("layer_norm_epsilon",), "norm_eps", "f32", True
        ),
        without=("{arch}.attention.layer_norm_rms_epsilon", "{arch}.rope.freq_base"),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "layer_norm_epsilon": 1e-5,
        "seq_length": 2048,
        "tie_word_embeddings": True,
    }
    fixed = {"apply_residual_connection_post_layernorm": (False,)}  # noqa: RUF012 - read only
    reads = (  # all of them ways to train or to compute the same
        *("slow_but_exact", "attention_softmax_in_fp32", "bias_dropout_fusion", "hidden_act"),
        *("masked_softmax_fusion", "offset_alibi", "skip_bias_add", "skip_bias_add_qkv"),
        *("n_embed", "unk_token_id"),
    )
    rope_types = ("default",)
    tensors = renamed(
        (
            EMBEDDING,
            *encoder_norm("token_embd_norm", "transformer.word_embeddings_layernorm"),
            *encoder_norm("output_norm", "model.norm"),
            HEAD[1],
            *encoder_norm(f"{BLOCK}attn_norm", f"{LAYER}input_layernorm"),
            *each_head(attention.FUSED_TENSORS),
            *encoder_norm(f"{BLOCK}ffn_norm", f"{LAYER}post_attention_layernorm"),
            *UNGATED_TENSORS,
        ),
        NAMES,
    )

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        width = config.get("hidden_size") or config.get("n_embed")
        return super().config({**config, "hidden_size": width})

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, None, fused=True, alibi=ALIBI)
        return Layer(mixer, FeedForward.of(values, i, activation="gelu_tanh", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        x = layer_norm(ops, ops.embed("token_embd.weight"), "token_embd_norm", hp.norm_eps)
        return starcoder2.decode(ops, x, hp)


ARCHITECTURE = Bloom()

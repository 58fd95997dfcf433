"""ChatGLM 3 and GLM-4 9B (2024): adjacent pairs of half of each head rotate, gate and up are one.

ChatGLMModel's weight for queries, keys and values becomes three; files of others may hold one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ggq.errors import ModelError
from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, FF_NORM, HEAD, MIXER_NORM, head_width
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward
from ggq.models.layers.attention import Attention, rotary_share, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import share
from ggq.models.table import Key, Tensor, changed, renamed, taken_from

__all__ = ["ARCHITECTURE"]

FUSED = "blk.0.attn_qkv.weight"
SETTINGS = {  # ChatGLMModel's names
    "num_layers": "num_hidden_layers",
    "ffn_hidden_size": "intermediate_size",
    "seq_length": "max_position_embeddings",
    "layernorm_epsilon": "rms_norm_eps",
    "padded_vocab_size": "vocab_size",
    "kv_channels": "head_dim",
}
NAMES = {
    "model.embed_tokens": "transformer.embedding.word_embeddings",
    "model.norm": "transformer.encoder.final_layernorm",
    "model.layers": "transformer.encoder.layers",
    "lm_head": "transformer.output_layer",
    "self_attn.qkv_proj": "self_attention.query_key_value",
    "self_attn.o_proj": "self_attention.dense",
    "gate_up_proj": "dense_h_to_4h",
    "down_proj": "dense_4h_to_h",
}


def _both(table: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return ``table`` whose tensors may also be ChatGLMModel's."""
    other = renamed(taken_from("self_attn.qkv_proj", table, "part"), NAMES)
    pairs = zip(table, other, strict=True)
    return tuple(replace(row, fused=(one.hf[0], one.transform)) for row, one in pairs)


class ChatGlm(Architecture):
    name = "chatglm"
    hf_classes = (
        *("GlmForCausalLM", "GlmModel", "ChatGLMModel", "ChatGLMForConditionalGeneration"),
    )
    hf_model_type = "glm"
    keys = changed(
        DECODER_KEYS,
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=share(0.5, head_width)),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1.5625e-7,
        "rope_theta": 10000.0,
    }
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "add_bias_linear": (False,),
        "apply_residual_connection_post_layernorm": (False,),
        "interleaved_qkv": (False,),
        "original_rope": (True,),
        "post_layer_norm": (True,),
        "rmsnorm": (True,),
    }
    reads = (
        *(*SETTINGS, "rope_ratio", "multi_query_group_num", "multi_query_attention"),
        *("apply_query_key_layer_scaling", "attention_softmax_in_fp32", "add_qkv_bias"),
        *("bias_dropout_fusion", "fp32_residual_connection"),
    )
    rope_types = ("default",)
    tensors = _both(
        (
            EMBEDDING,
            *HEAD,
            *MIXER_NORM,
            *changed(attention.FUSED_TENSORS, *attention.TENSORS),
            *FF_NORM,
            *feed_forward.FUSED_TENSORS,
        )
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "norm"), fused=values["fused"])
        return Layer(mixer, FeedForward.of(values, i, fused=True))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def rows(self, hp: HParams) -> Iterator[tuple[str, Tensor, int | None]]:
        mixer = hp.find(Attention)
        fused = mixer is not None and mixer.fused
        absent = ("attn_q.", "attn_k.", "attn_v.") if fused else ("attn_qkv.",)
        return (row for row in super().rows(hp) if not any(name in row[0] for name in absent))

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        given = {new: config[old] for old, new in SETTINGS.items() if config.get(old) is not None}
        if config.get("multi_query_attention"):
            given["num_key_value_heads"] = config.get("multi_query_group_num")
        if ratio := config.get("rope_ratio"):
            given["rope_theta"] = 10000.0 * ratio
        return super().config({**config, **given})

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        return super().ignores(hf_name, hp) or hf_name.endswith("rotary_pos_emb.inv_freq")

    def export_config(self, hp: HParams) -> dict[str, Any]:
        mixer = hp.find(Attention)
        if mixer is not None and mixer.fused:
            raise ModelError("chatglm: a file with attn_qkv is not written as a folder")
        return rotary_share(hp)

    def _values_hf(self, config: Mapping[str, Any]) -> dict[str, Any]:
        return super()._values_hf(config) | {"fused": False}

    def _values_gguf(self, source: Any) -> dict[str, Any]:
        return super()._values_gguf(source) | {"fused": FUSED in source.tensors}


ARCHITECTURE = ChatGlm()

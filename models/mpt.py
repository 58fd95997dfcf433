"""MPT: ALiBi instead of positions, LayerNorms without biases, exact GELU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ggq.models.base import Architecture
from ggq.models.decoder import (
    DECODER_KEYS,
    EMBEDDING,
    FF_NORM,
    HEAD,
    MIXER_NORM,
    unembed,
)
from ggq.models.gpt2 import ff_key
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import ALIBI_KEY, CLAMP_KEY, Attention
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import UNGATED_TENSORS, FeedForward
from ggq.models.table import Key, changed, renamed, sourced

__all__ = ["ARCHITECTURE"]

SETTINGS = {
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "hidden_size": "d_model",
    "max_position_embeddings": "max_seq_len",
    "clip_qkv": "attn_config.clip_qkv",
}
NAMES = {
    "model.embed_tokens": "transformer.wte",
    "model.norm": "transformer.norm_f",
    "model.layers": "transformer.blocks",
    "input_layernorm": "norm_1",
    "post_attention_layernorm": "norm_2",
    "self_attn.qkv_proj": "attn.Wqkv",
    "self_attn.o_proj": "attn.out_proj",
    "mlp.": "ffn.",
}
ATTENTION = {  # settings of attn_config: the values that the graph has
    "attn_type": ("multihead_attention",),
    "prefix_lm": (False,),
    "qk_ln": (False,),
    "softmax_scale": (None,),
    "attn_uses_sequence_id": (False,),
    "alibi": (True,),
    "alibi_bias_max": (8,),  # transformers reads no other, files would follow it
    "rope": (False, None),
}


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits of a pre-norm decoder whose LayerNorms have no biases."""

    def normed(x: Any, name: str) -> Any:
        return ops.norm(x, f"{name}.weight", hp.norm_eps, kind="layer")

    x = ops.embed("token_embd.weight")
    for layer in hp.layers:
        x = ops.add(x, layer.mixer.forward(ops, normed(x, f"{layer.prefix}attn_norm")))
        x = ops.add(x, layer.feed.forward(ops, normed(x, f"{layer.prefix}ffn_norm")))
    return unembed(ops, normed(ops.gather(x), "output_norm"), hp)


class Mpt(Architecture):
    name = "mpt"
    hf_classes = ("MPTForCausalLM", "MptForCausalLM", "MptModel")
    hf_model_type = "mpt"
    hf_base = "transformer."
    keys = changed(
        sourced((*DECODER_KEYS, CLAMP_KEY), SETTINGS),
        ff_key("d_model"),
        Key("{arch}.attention.head_count_kv", (), "n_head_kv", "u32s"),
        Key(
            "{arch}.attention.layer_norm_epsilon", ("layer_norm_epsilon",), "norm_eps", "f32", True
        ),
        Key(ALIBI_KEY.gguf, ("attn_config.alibi_bias_max",), "alibi", "f32", required=True),
        without=("{arch}.attention.layer_norm_rms_epsilon", "{arch}.rope.freq_base"),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    }
    fixed = {  # noqa: RUF012 - read only
        "expansion_ratio": (4,),
        "norm_type": ("low_precision_layernorm", "layernorm", "low_precision_ln"),
    }
    reads = (
        *("embedding_fraction", "emb_pdrop", "hidden_act", "learned_pos_emb", "no_bias", "verbose"),
    )
    rope_types = ("default",)
    tensors = renamed(
        (EMBEDDING, *HEAD, *MIXER_NORM, *attention.FUSED_TENSORS, *FF_NORM, *UNGATED_TENSORS),
        NAMES,
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, None, fused=True)
        return Layer(mixer, FeedForward.of(values, i, activation="gelu", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        """Yield settings of its attention that the graph does not have."""
        given = config.get("attn_config") or {}
        for name, values in ATTENTION.items():
            if (value := given.get(name, values[0])) not in values:
                yield f"attn_config.{name}", value, f"mpt is converted with {values[0]} only"

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        flat["attn_config"] = {"alibi_bias_max": 8, **(flat.get("attn_config") or {})}
        return flat

    def export_config(self, hp: HParams) -> dict[str, Any]:
        mixer = hp.find(Attention)
        assert mixer is not None
        return {"attn_config": {"alibi_bias_max": round(mixer.alibi), "clip_qkv": mixer.clamp}}


ARCHITECTURE = Mpt()

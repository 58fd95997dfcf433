"""Falcon 7B, 40B, 180B and Falcon 2: attention and feed-forward side by side, exact GELU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models.base import Architecture
from ggq.models.bloom import NAMES
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, unembed
from ggq.models.encoder import encoder_norm
from ggq.models.gpt2 import ff_key
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import UNGATED_TENSORS, FeedForward
from ggq.models.layers.linear import layer_norm
from ggq.models.table import BLOCK, LAYER, Key, Tensor, absorbed_by, changed, each_head, renamed

__all__ = ["ARCHITECTURE"]


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits of a decoder whose layers' parts are added, under one norm or two."""
    x = ops.embed("token_embd.weight")
    for layer in hp.layers:
        p = layer.prefix
        normed = layer_norm(ops, x, f"{p}attn_norm", hp.norm_eps)
        fed = layer.feed.forward(ops, normed)
        if ops.has(f"{p}attn_norm_2.weight"):
            normed = layer_norm(ops, x, f"{p}attn_norm_2", hp.norm_eps)
        x = ops.add(ops.add(x, layer.mixer.forward(ops, normed)), fed)
    return unembed(ops, layer_norm(ops, ops.gather(x), "output_norm", hp.norm_eps), hp)


def _heads_kv(config: Mapping[str, Any]) -> Any:
    """Return the key-value heads: as said, one where all queries share it, else as many."""
    said = config.get("num_kv_heads") if config.get("new_decoder_architecture") else None
    said = said or config.get("n_head_kv")
    all_of_them = config.get("num_attention_heads") or config.get("n_head")
    return said or (1 if config.get("multi_query", True) else all_of_them)


def _named(gguf: str, hf: str, other: str) -> tuple[Tensor, ...]:
    """Return the rows of a LayerNorm that is called ``other`` where a layer has no second one."""
    pairs = zip(encoder_norm(gguf, hf), ("weight", "bias"), strict=True)
    return tuple(replace(row, fused=(f"{other}.{name}", "copy")) for row, name in pairs)


def _second(gguf: str, hf: str) -> tuple[Tensor, ...]:
    """Return the rows of a LayerNorm that only some layers have."""
    return tuple(replace(row, optional=True) for row in encoder_norm(gguf, hf))


TENSORS = renamed(
    (
        EMBEDDING,
        *encoder_norm("output_norm", "model.norm"),
        HEAD[1],
        *_named(f"{BLOCK}attn_norm", f"{LAYER}ln_mlp", "transformer.h.{i}.input_layernorm"),
        *_second(f"{BLOCK}attn_norm_2", f"{LAYER}ln_attn"),
        *absorbed_by(
            each_head((*attention.FUSED_TENSORS, *UNGATED_TENSORS)),
            {"attn_norm": None, "ffn_norm": None},
        ),
    ),
    NAMES,
)


class Falcon(Architecture):
    name = "falcon"
    hf_classes = ("FalconForCausalLM", "RWForCausalLM", "FalconModel")
    hf_model_type = "falcon"
    hf_base = "transformer."
    exports = False  # one norm's name depends on whether there is another
    keys = changed(
        DECODER_KEYS,
        ff_key("hidden_size", "ffn_hidden_size"),
        Key(
            "{arch}.attention.head_count",
            ("num_attention_heads", "n_head"),
            "n_head",
            "u32s",
            required=True,
        ),
        Key("{arch}.attention.head_count_kv", (), "n_head_kv", "u32s", derive=_heads_kv),
        Key(
            "{arch}.attention.layer_norm_epsilon", ("layer_norm_epsilon",), "norm_eps", "f32", True
        ),
        without=("{arch}.attention.layer_norm_rms_epsilon",),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "layer_norm_epsilon": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    }
    fixed = {  # noqa: RUF012 - read only
        "activation": ("gelu",),
        "alibi": (False,),
        "parallel_attn": (True,),
        "apply_residual_connection_post_layernorm": (False,),
    }
    reads = ("bias", "num_ln_in_parallel_attn", "num_kv_heads", "multi_query")
    tensors = TENSORS

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), fused=True)
        return Layer(mixer, FeedForward.of(values, i, activation="gelu", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)


ARCHITECTURE = Falcon()

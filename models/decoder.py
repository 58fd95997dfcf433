"""What most decoders share: size keys, embedding and head with their tensors, RMS norms.

An architecture's file puts them together with its layers' parts and writes its own graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward, rope
from ggq.models.layers.linear import linear, rms_norm
from ggq.models.pooled import POOLED_KEYS
from ggq.models.table import Key, Tensor, norm

__all__ = [
    "DECODER_KEYS",
    "DECODER_TENSORS",
    "EMBEDDING",
    "FF_NORM",
    "HEAD",
    "LAYER_NORM_KEY",
    "LLAMA_KEYS",
    "MIXER_NORM",
    "POST_NORMS",
    "ROPE_DIM_KEY",
    "SEQUENCE_KEY",
    "VOCAB_KEY",
    "head_width",
    "logits",
    "unembed",
    "with_head_width",
]


def head_width(config: Mapping[str, Any]) -> int | None:
    """Return the width of one attention head: head_dim, else hidden_size / num_attention_heads."""
    given: int | None = config.get("head_dim")
    if given:
        return given
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if not isinstance(hidden, int) or not isinstance(heads, int) or heads < 1:
        return None
    return None if hidden % heads else hidden // heads


SIZE_KEYS = (
    Key("{arch}.block_count", ("num_hidden_layers", "n_layer"), "n_layer", required=True),
    Key(
        "{arch}.context_length", ("max_position_embeddings", "n_ctx"), "n_ctx_train", required=True
    ),
    Key("{arch}.embedding_length", ("hidden_size",), "n_embd", required=True),
)
EPS_KEY = Key(
    "{arch}.attention.layer_norm_rms_epsilon", ("rms_norm_eps",), "norm_eps", "f32", required=True
)
LAYER_NORM_KEY = Key(
    "{arch}.attention.layer_norm_epsilon", ("layer_norm_epsilon",), "norm_eps", "f32", required=True
)
SEQUENCE_KEY = Key(  # of classes that say the length of sequences, some beside positions
    "{arch}.context_length",
    ("max_sequence_length", "max_position_embeddings", "model_max_length"),
    "n_ctx_train",
    required=True,
)
# Files hold keys in this order.
DECODER_KEYS = (
    *SIZE_KEYS,
    *feed_forward.KEYS,
    *attention.HEAD_KEYS,
    *rope.KEYS,
    EPS_KEY,
    *POOLED_KEYS,
    *attention.WIDTH_KEYS,
)


def with_head_width(keys: tuple[Key, ...]) -> tuple[Key, ...]:
    """Return ``keys`` for an HF class that fills in head_dim itself: files then always say it."""
    lengths = {key.gguf for key in attention.WIDTH_KEYS}
    return tuple(replace(k, derive=head_width) if k.gguf in lengths else k for k in keys)


VOCAB_KEY = Key("{arch}.vocab_size", ("vocab_size",), "n_vocab")
ROPE_DIM_KEY = Key("{arch}.rope.dimension_count", (), "rope_dim", derive=head_width)
LLAMA_KEYS = (*with_head_width(DECODER_KEYS), VOCAB_KEY, ROPE_DIM_KEY)

EMBEDDING = Tensor(
    "token_embd.weight", ("model.embed_tokens.weight",), ("vocab", "embd"), role="token_embd"
)
HEAD = (
    Tensor("output_norm.weight", ("model.norm.weight",), ("embd",), role="norm", f32=True),
    Tensor(
        "output.weight",
        ("lm_head.weight",),
        ("vocab", "embd"),
        role="output",
        input="head_in",
        absorbs="output_norm.weight",
        optional=True,
    ),
)
MIXER_NORM = norm("attn_norm", "input_layernorm")
FF_NORM = norm("ffn_norm", "post_attention_layernorm")
DECODER_TENSORS = (
    EMBEDDING,
    *HEAD,
    *MIXER_NORM,
    *attention.TENSORS,
    *FF_NORM,
    *feed_forward.TENSORS,
)
# A layer of four norms: HF's post_attention_layernorm then follows attention directly.
POST_NORMS = (
    *norm("post_attention_norm", "post_attention_layernorm"),
    *norm("ffn_norm", "pre_feedforward_layernorm"),
    *norm("post_ffw_norm", "post_feedforward_layernorm"),
)


def logits(ops: Any, x: Any, hp: HParams, norm: str = "output_norm") -> Any:
    """Return the logits of the gathered rows under an RMS norm."""
    return unembed(ops, rms_norm(ops, ops.gather(x), norm, hp.norm_eps), hp)


def unembed(ops: Any, x: Any, hp: HParams) -> Any:
    """Return the logits of normed rows: output or tied embedding, scale, cap."""
    x = linear(ops, x, "output" if ops.has("output.weight") else "token_embd")
    scale, cap = hp.readout.logit_scale, hp.readout.final_softcap
    x = ops.scale(x, scale) if scale else x
    return ops.softcap(x, cap) if cap else x

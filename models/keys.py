"""The GGUF keys that most decoder architectures share, as one table; architectures add to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models.base import Key

__all__ = [
    "DECODER_KEYS",
    "EXPERT_KEYS",
    "LLAMA_KEYS",
    "WINDOW_KEYS",
    "changed",
    "head_width",
    "scaled",
    "with_head_width",
]

ROPE = "rope_parameters"
POOLING = "sentence_transformers_pooling"  # llama.cpp's number; the converter reads its folder


def head_width(config: Mapping[str, Any]) -> int | None:
    """Return the width of one attention head: head_dim, else hidden_size / num_attention_heads."""
    if config.get("head_dim"):
        return config["head_dim"]
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    whole = isinstance(hidden, int) and isinstance(heads, int) and heads > 0
    return hidden // heads if whole and hidden % heads == 0 else None


def _rope_type(config: Mapping[str, Any]) -> str | None:
    """Return the scaling type as GGUF names it, None for plain rope and for stored factors."""
    rope = config[ROPE]
    names = {"linear": "linear", "yarn": "yarn", "longrope": "longrope", "su": "longrope"}
    scaling = names.get(rope.get("rope_type"))
    return scaling if scaling == "longrope" or rope.get("factor") is not None else None


def scaled(name: str, *types: str) -> Any:
    """Return a derive function: the rope setting ``name``, only under the scaling ``types``."""
    return lambda config: config[ROPE].get(name) if _rope_type(config) in types else None


DECODER_KEYS = (
    Key("{arch}.block_count", ("num_hidden_layers", "n_layer"), "n_layer", required=True),
    Key(
        "{arch}.context_length", ("max_position_embeddings", "n_ctx"), "n_ctx_train", required=True
    ),
    Key("{arch}.embedding_length", ("hidden_size",), "n_embd", required=True),
    Key("{arch}.feed_forward_length", ("intermediate_size",), "n_ff", "u32s", required=True),
    Key("{arch}.attention.head_count", ("num_attention_heads",), "n_head", "u32s", required=True),
    Key(
        "{arch}.attention.head_count_kv",
        ("num_key_value_heads",),
        "n_head_kv",
        "u32s",
        derive=lambda c: c.get("num_attention_heads"),
    ),
    Key("{arch}.rope.scaling.type", (), "rope_scaling", "str", derive=_rope_type),
    Key(
        "{arch}.rope.scaling.factor",
        (),
        "rope_factor",
        "f32",
        derive=scaled("factor", "linear", "yarn"),
    ),
    Key("{arch}.rope.scale_linear", (), "rope_factor", "f32"),
    Key(
        "{arch}.rope.scaling.original_context_length",
        attr="rope_original_context",
        derive=scaled("original_max_position_embeddings", "yarn"),
    ),
    Key("{arch}.rope.scaling.attn_factor", (), "rope_attn_factor", "f32"),
    Key(
        "{arch}.rope.scaling.yarn_ext_factor",
        attr="rope_ext_factor",
        type="f32",
        derive=scaled("extrapolation_factor", "yarn"),
    ),
    Key(
        "{arch}.rope.scaling.yarn_attn_factor",
        type="f32",
        derive=scaled("attention_factor", "yarn"),
    ),
    Key(
        "{arch}.rope.scaling.yarn_beta_fast",
        attr="rope_beta_fast",
        type="f32",
        derive=scaled("beta_fast", "yarn"),
    ),
    Key(
        "{arch}.rope.scaling.yarn_beta_slow",
        attr="rope_beta_slow",
        type="f32",
        derive=scaled("beta_slow", "yarn"),
    ),
    Key("{arch}.rope.freq_base", (f"{ROPE}.rope_theta",), "rope_base", "f32"),
    Key(
        "{arch}.attention.layer_norm_rms_epsilon",
        ("rms_norm_eps",),
        "norm_eps",
        "f32",
        required=True,
    ),
    Key("{arch}.pooling_type", (POOLING,), "pooling"),
    Key("{arch}.attention.key_length", ("head_dim",), "head_dim"),
    Key("{arch}.attention.value_length", ("head_dim",), "head_dim_v"),
)


def with_head_width(keys: tuple[Key, ...]) -> tuple[Key, ...]:
    """Return ``keys`` for an HF class that fills in head_dim itself: files then always say it."""
    lengths = ("{arch}.attention.key_length", "{arch}.attention.value_length")
    return tuple(replace(k, derive=head_width) if k.gguf in lengths else k for k in keys)


def changed(keys: tuple[Key, ...], *new: Key, without: tuple[str, ...] = ()) -> tuple[Key, ...]:
    """Return ``keys`` with ``new`` ones in the place of their namesakes or at the end."""
    by_name = {k.gguf: k for k in (*keys, *new)}
    return tuple(k for name, k in by_name.items() if name not in without)


LLAMA_KEYS = (
    *with_head_width(DECODER_KEYS),
    Key("{arch}.vocab_size", ("vocab_size",), "n_vocab"),
    Key("{arch}.rope.dimension_count", (), "rope_dim", derive=head_width),
)


def _sliding(config: Mapping[str, Any]) -> list[bool] | int | None:
    """Return which layers have the window, None where the architecture's own period says it."""
    kinds, period = config.get("layer_types"), config.get("window_period")
    if isinstance(kinds, (list, tuple)):
        sliding = [kind == "sliding_attention" for kind in kinds]
        return None if sliding == [(i + 1) % period != 0 for i in range(len(kinds))] else sliding
    given = config.get("sliding_window_pattern")
    return None if given == period else given


# For architectures with ``window_period``: all layers but every n-th see the window only.
WINDOW_KEYS = (
    Key("{arch}.attention.sliding_window", ("sliding_window",), "window"),
    Key("{arch}.attention.sliding_window_pattern", (), "window_layers", "bools", derive=_sliding),
    Key("{arch}.rope.freq_base_swa", ("rope_local.rope_theta",), "rope_local_base", "f32"),
)

EXPERT_KEYS = (
    Key(
        "{arch}.expert_count",
        ("num_local_experts", "num_experts", "n_routed_experts"),
        "n_expert",
        default=0,
    ),
    Key("{arch}.expert_used_count", ("num_experts_per_tok",), "n_expert_used", default=0),
    Key("{arch}.expert_feed_forward_length", ("moe_intermediate_size",), "n_ff_expert"),
)

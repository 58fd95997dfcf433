"""Phi-3 and Phi-4: fused projections, partial rope, LongRoPE's two sets of factors."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models.base import Key
from ggq.models.blocks import Decoder
from ggq.models.keys import DECODER_KEYS, changed, head_width
from ggq.models.tables import DECODER_TENSORS, FUSED_TENSORS, LONGROPE_FACTORS
from ggq.models.tables import changed as changed_rows

__all__ = ["ARCHITECTURE"]

PARTS = ("attn_q", "attn_k", "attn_v", "ffn_gate")
SPLIT = ("blk.{i}.attn_v.weight", "blk.{i}.ffn_up.weight")  # parts here: they take over no scale


def _original_context(config: Mapping[str, Any]) -> int | None:
    rope = config["rope_parameters"]
    return rope.get("original_max_position_embeddings") or config.get("max_position_embeddings")


def _magnitude(config: Mapping[str, Any]) -> float | None:
    """Return LongRoPE's factor on cosines and sines (arXiv 2402.13753), None without factors."""
    rope = config["rope_parameters"]
    if not rope.get("long_factor"):
        return None
    original = _original_context(config)
    ratio = config["max_position_embeddings"] / original
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    return math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 else 1.0


def _rope_dims(config: Mapping[str, Any]) -> int | None:
    width = head_width(config)
    share = config["rope_parameters"].get("partial_rotary_factor", 1.0)
    return int(width * share) if width else None


class Phi3(Decoder):
    name = "phi3"
    hf_classes = ("Phi3ForCausalLM",)
    hf_model_type = "phi3"
    rope_kind = "neox"
    keys = changed(
        DECODER_KEYS,
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=_rope_dims),
        Key(
            "{arch}.rope.scaling.original_context_length",
            attr="rope_original_context",
            derive=_original_context,
        ),
        Key("{arch}.rope.scaling.attn_factor", (), "rope_attn_factor", "f32", derive=_magnitude),
        Key(
            "{arch}.attention.sliding_window",
            ("sliding_window",),
            "window",
            derive=lambda config: 0,  # llama.cpp tells Phi-4 by it
            to_hf=lambda window: window or None,
        ),
        without=("{arch}.rope.scaling.type",),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    tensors = changed_rows(
        tuple(
            replace(row, absorbs=None) if row.absorbs in SPLIT else row for row in DECODER_TENSORS
        ),
        *FUSED_TENSORS,
        *LONGROPE_FACTORS,
        without=tuple(f"{n}.{s}" for n in PARTS for s in ("weight", "bias")),
    )

    def export_config(self, hp: Any) -> dict[str, Any]:
        return {
            "original_max_position_embeddings": hp.rope.original_context,
            "partial_rotary_factor": hp.rope_dim / hp.head_dim,
        }


ARCHITECTURE = Phi3()

"""Phi-3 and Phi-4: fused projections, partial rope, LongRoPE's two sets of factors."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, FF_NORM, HEAD, MIXER_NORM, head_width
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward
from ggq.models.layers.attention import Attention, rotary_share, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import LONG_AND_SHORT, share
from ggq.models.table import Key, changed

__all__ = ["ARCHITECTURE"]


def _original_context(config: Mapping[str, Any]) -> int | None:
    rope = config["rope_parameters"]
    return rope.get("original_max_position_embeddings") or config.get("max_position_embeddings")


class Phi3(Architecture):
    name = "phi3"
    hf_classes = ("Phi3ForCausalLM",)
    hf_model_type = "phi3"
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "interpolate_factor": (1,),
        "full_attn_mod": (1,),
        "lm_head_bias": (False,),
    }
    reads = ("original_max_position_embeddings", "layer_types")
    rope_types = ("default", "longrope")
    peer_factors = LONG_AND_SHORT
    keys = changed(
        DECODER_KEYS,
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=share(1.0, head_width)),
        Key(
            "{arch}.rope.scaling.original_context_length",
            attr="rope_original_context",
            derive=_original_context,
        ),
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
    tensors = (
        EMBEDDING,
        *HEAD,
        *MIXER_NORM,
        *attention.FUSED_TENSORS,
        *FF_NORM,
        *feed_forward.FUSED_TENSORS,
    )

    def layer(self, values: Values, i: int) -> Layer:
        rope = replace(rotation(values, "neox"), long_and_short=LONG_AND_SHORT)
        mixer = Attention.of(values, i, rope, fused=True)
        return Layer(mixer, FeedForward.of(values, i, fused=True))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        assert hp.rope is not None
        return {"original_max_position_embeddings": hp.rope.original_context, **rotary_share(hp)}


ARCHITECTURE = Phi3()

"""Seed-OSS: like qwen2, with heads wider than their share of the embedding."""

from typing import Any

from ggq.models import llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import absorbed_by, norm

__all__ = ["ARCHITECTURE"]

FF_NORM = "post_attention_norm"  # what llama.cpp calls the norm before the feed-forward here


class SeedOss(Architecture):
    name = "seed_oss"
    hf_classes = ("SeedOssForCausalLM",)
    hf_model_type = "seed_oss"
    keys = DECODER_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 128,
        "max_position_embeddings": 524288,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tensors = (
        EMBEDDING,
        *HEAD,
        *MIXER_NORM,
        *attention.TENSORS,
        *norm(FF_NORM, "post_attention_layernorm"),
        *absorbed_by(feed_forward.TENSORS, {"ffn_norm": FF_NORM}),
    )

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "neox")), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp, ff_norm=FF_NORM)


ARCHITECTURE = SeedOss()

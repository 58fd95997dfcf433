"""Orion 14B: like llama with LayerNorms, and halves of heads that rotate."""

from __future__ import annotations

from typing import Any

from ggq.models import starcoder2
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, SEQUENCE_KEY
from ggq.models.encoder import encoder_norm
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import BLOCK, LAYER, Key, changed

__all__ = ["ARCHITECTURE"]


class Orion(Architecture):
    name = "orion"
    hf_classes = ("OrionForCausalLM",)
    hf_model_type = "orion"
    exports = False  # transformers has no class for it
    keys = changed(
        DECODER_KEYS,
        SEQUENCE_KEY,
        Key("{arch}.attention.layer_norm_epsilon", ("rms_norm_eps",), "norm_eps", "f32", True),
        without=("{arch}.attention.layer_norm_rms_epsilon",),
    )
    config_defaults = {"rms_norm_eps": 1e-5, "rope_theta": 10000.0}  # noqa: RUF012 - read only
    rope_types = ("default", "linear", "dynamic")
    tensors = (
        EMBEDDING,
        *encoder_norm("output_norm", "model.norm"),
        HEAD[1],
        *encoder_norm(f"{BLOCK}attn_norm", f"{LAYER}input_layernorm"),
        *attention.TENSORS,
        *encoder_norm(f"{BLOCK}ffn_norm", f"{LAYER}post_attention_layernorm"),
        *feed_forward.TENSORS,
    )

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "neox")), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return starcoder2.forward(ops, hp)


ARCHITECTURE = Orion()

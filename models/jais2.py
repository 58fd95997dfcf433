"""Jais 2: like StarCoder 2, with squared ReLUs."""

from typing import Any

from ggq.models import starcoder2
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, ROPE_DIM_KEY, VOCAB_KEY
from ggq.models.encoder import encoder_norm
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import UNGATED_TENSORS, FeedForward
from ggq.models.table import BLOCK, LAYER, Key, changed

__all__ = ["ARCHITECTURE"]


class Jais2(Architecture):
    name = "jais2"
    hf_classes = ("Jais2ForCausalLM", "Jais2Model")
    hf_model_type = "jais2"
    keys = changed(
        (*DECODER_KEYS, ROPE_DIM_KEY, VOCAB_KEY),
        Key("{arch}.attention.layer_norm_epsilon", ("layer_norm_eps",), "norm_eps", "f32", True),
        without=("{arch}.attention.layer_norm_rms_epsilon",),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 8192,
        "layer_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    fixed = {"hidden_act": ("relu2",)}  # noqa: RUF012 - read only
    tensors = (
        EMBEDDING,
        *encoder_norm("output_norm", "model.norm"),
        HEAD[1],
        *encoder_norm(f"{BLOCK}attn_norm", f"{LAYER}input_layernorm"),
        *attention.TENSORS,
        *encoder_norm(f"{BLOCK}ffn_norm", f"{LAYER}post_attention_layernorm"),
        *UNGATED_TENSORS,
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"))
        return Layer(mixer, FeedForward.of(values, i, activation="relu2", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return starcoder2.forward(ops, hp)


ARCHITECTURE = Jais2()

"""Nemotron 3 and 4, Minitron: LayerNorms around 1, half of each head rotates, squared ReLUs."""

from typing import Any

from ggq.models import starcoder2
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, VOCAB_KEY, head_width
from ggq.models.encoder import encoder_norm
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention, rotary_share, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import UNGATED_TENSORS, FeedForward
from ggq.models.layers.rope import scaling_or_none, share
from ggq.models.table import BLOCK, LAYER, Key, changed, plus_one

__all__ = ["ARCHITECTURE"]


class Nemotron(Architecture):
    name = "nemotron"
    hf_classes = ("NemotronForCausalLM",)
    hf_model_type = "nemotron"
    keys = changed(
        (*DECODER_KEYS, VOCAB_KEY),
        Key("{arch}.attention.layer_norm_epsilon", ("norm_eps",), "norm_eps", "f32", True),
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=share(0.5, head_width)),
        Key("{arch}.rope.scaling.type", (), "rope_scaling", "str", derive=scaling_or_none),
        without=("{arch}.attention.layer_norm_rms_epsilon",),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 4096,
        "norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    tensors = plus_one(
        (
            EMBEDDING,
            *encoder_norm("output_norm", "model.norm"),
            HEAD[1],
            *encoder_norm(f"{BLOCK}attn_norm", f"{LAYER}input_layernorm"),
            *attention.TENSORS,
            *encoder_norm(f"{BLOCK}ffn_norm", f"{LAYER}post_attention_layernorm"),
            *UNGATED_TENSORS,
        )
    )
    fixed = {"hidden_act": ("relu2",)}  # noqa: RUF012 - read only

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"))
        return Layer(mixer, FeedForward.of(values, i, activation="relu2", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return starcoder2.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return rotary_share(hp)


ARCHITECTURE = Nemotron()

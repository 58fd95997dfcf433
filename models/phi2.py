"""Phi 1, 1.5 and 2: parts side by side under one LayerNorm, biases on all, on the head, too."""

from typing import Any

from ggq.models import ledger
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, head_width, unembed
from ggq.models.encoder import encoder_norm
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention, rotary_share, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import UNGATED_TENSORS, FeedForward
from ggq.models.layers.linear import layer_norm
from ggq.models.layers.rope import share
from ggq.models.table import BLOCK, LAYER, Key, Tensor, beside, changed, renamed

__all__ = ["ARCHITECTURE"]


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits of a decoder whose layers' two parts see the same and are added."""
    x = ops.embed("token_embd.weight")
    for layer in hp.layers:
        normed = layer_norm(ops, x, f"{layer.prefix}attn_norm", hp.norm_eps)
        x = ops.add(x, layer.mixer.forward(ops, normed))
        x = ops.add(x, layer.feed.forward(ops, normed))
    return unembed(ops, layer_norm(ops, ops.gather(x), "output_norm", hp.norm_eps), hp)


class Phi2(Architecture):
    name = "phi2"
    hf_classes = ("PhiForCausalLM",)
    hf_model_type = "phi"
    keys = changed(
        DECODER_KEYS,
        Key("{arch}.attention.layer_norm_epsilon", ("layer_norm_eps",), "norm_eps", "f32", True),
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=share(0.5, head_width)),
        without=("{arch}.attention.layer_norm_rms_epsilon",),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "layer_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    tensors = (
        EMBEDDING,
        *encoder_norm("output_norm", "model.final_layernorm"),
        HEAD[1],
        Tensor("output.bias", ("lm_head.bias",), ("vocab",), role="bias", optional=True, f32=True),
        *encoder_norm(f"{BLOCK}attn_norm", f"{LAYER}input_layernorm"),
        *renamed(attention.TENSORS, {"o_proj": "dense"}),
        *beside(renamed(UNGATED_TENSORS, {"up_proj": "fc1", "down_proj": "fc2"})),
    )
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.GELU,
        "qk_layernorm": (False,),
    }

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"))
        return Layer(mixer, FeedForward.of(values, i, activation="gelu_tanh", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return rotary_share(hp)


ARCHITECTURE = Phi2()

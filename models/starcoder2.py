"""StarCoder2: like llama with LayerNorms, biases and a feed-forward without a gate."""

from typing import Any

from ggq.models import ledger
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, unembed
from ggq.models.encoder import encoder_norm
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import UNGATED_TENSORS, FeedForward
from ggq.models.layers.linear import layer_norm
from ggq.models.table import BLOCK, LAYER, Key, changed, renamed

__all__ = ["ARCHITECTURE", "decode", "forward"]


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits of a pre-norm decoder whose norms are LayerNorms."""
    return decode(ops, ops.embed("token_embd.weight"), hp)


def decode(ops: Any, x: Any, hp: HParams) -> Any:
    """Return what the layers and the head make of embedded tokens."""
    for layer in hp.layers:
        normed = layer_norm(ops, x, f"{layer.prefix}attn_norm", hp.norm_eps)
        x = ops.add(x, layer.mixer.forward(ops, normed))
        normed = layer_norm(ops, x, f"{layer.prefix}ffn_norm", hp.norm_eps)
        x = ops.add(x, layer.feed.forward(ops, normed))
    return unembed(ops, layer_norm(ops, ops.gather(x), "output_norm", hp.norm_eps), hp)


class Starcoder2(Architecture):
    name = "starcoder2"
    hf_classes = ("Starcoder2ForCausalLM",)
    hf_model_type = "starcoder2"
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.GELU,
        "norm_type": ("layer_norm",),
        "mlp_type": ("default",),
    }
    keys = changed(
        DECODER_KEYS,
        Key("{arch}.attention.layer_norm_epsilon", ("norm_epsilon",), "norm_eps", "f32", True),
        Key("{arch}.attention.sliding_window", ("sliding_window",), "window"),
        without=("{arch}.attention.layer_norm_rms_epsilon",),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "norm_epsilon": 1e-5,
        "rope_theta": 10000.0,
    }
    tensors = (
        EMBEDDING,
        *encoder_norm("output_norm", "model.norm"),
        HEAD[1],
        *encoder_norm(f"{BLOCK}attn_norm", f"{LAYER}input_layernorm"),
        *attention.TENSORS,
        *encoder_norm(f"{BLOCK}ffn_norm", f"{LAYER}post_attention_layernorm"),
        *renamed(UNGATED_TENSORS, {"up_proj": "c_fc", "down_proj": "c_proj"}),
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"))
        return Layer(mixer, FeedForward.of(values, i, activation="gelu_tanh", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)


ARCHITECTURE = Starcoder2()

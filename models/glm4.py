"""GLM-4 (0414): four norms a layer, half of each head's columns rotate, in adjacent pairs."""

from typing import Any

from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, MIXER_NORM, head_width, logits
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward
from ggq.models.layers.attention import Attention, rotary_share, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.linear import rms_norm
from ggq.models.layers.rope import share
from ggq.models.table import Key, changed, norm

__all__ = ["ARCHITECTURE"]


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits of a decoder with norms before and after each part of a layer."""

    def normed(x: Any, name: str) -> Any:
        return rms_norm(ops, x, name, hp.norm_eps)

    x = ops.embed("token_embd.weight")
    x = ops.scale(x, hp.embedding_scale) if hp.embedding_scale else x
    for layer in hp.layers:
        p = layer.prefix
        y = layer.mixer.forward(ops, normed(x, f"{p}attn_norm"))
        x = ops.add(x, normed(y, f"{p}post_attention_norm"))
        y = layer.feed.forward(ops, normed(x, f"{p}ffn_norm"))
        x = ops.add(x, normed(y, f"{p}post_ffw_norm"))
    return logits(ops, x, hp)


class Glm4(Architecture):
    name = "glm4"
    hf_classes = ("Glm4ForCausalLM",)
    hf_model_type = "glm4"
    keys = changed(
        DECODER_KEYS,
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=share(0.5, head_width)),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1.5625e-7,
        "rope_theta": 10000.0,
    }
    tensors = (
        EMBEDDING,
        *HEAD,
        *MIXER_NORM,
        *attention.TENSORS,
        *norm("post_attention_norm", "post_self_attn_layernorm"),
        *norm("ffn_norm", "post_attention_layernorm"),
        *feed_forward.FUSED_TENSORS,
        *norm("post_ffw_norm", "post_mlp_layernorm"),
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "norm"))
        return Layer(mixer, FeedForward.of(values, i, fused=True))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return rotary_share(hp)


ARCHITECTURE = Glm4()

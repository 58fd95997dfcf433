"""OLMo 2: norms after attention and feed-forward, none before; q/k norms over all heads at once."""

from typing import Any

from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, logits
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.linear import rms_norm
from ggq.models.table import absorbed_by, norm

__all__ = ["ARCHITECTURE"]


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits of a post-norm decoder."""
    x = ops.embed("token_embd.weight")
    for layer in hp.layers:
        y = layer.mixer.forward(ops, x)
        x = ops.add(x, rms_norm(ops, y, f"{layer.prefix}post_attention_norm", hp.norm_eps))
        y = layer.feed.forward(ops, x)
        x = ops.add(x, rms_norm(ops, y, f"{layer.prefix}post_ffw_norm", hp.norm_eps))
    return logits(ops, x, hp)


class Olmo2(Architecture):
    name = "olmo2"
    hf_classes = ("Olmo2ForCausalLM",)
    hf_model_type = "olmo2"
    keys = DECODER_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    tensors = (
        EMBEDDING,
        *HEAD,
        *absorbed_by(
            (*attention.TENSORS, *feed_forward.TENSORS), {"attn_norm": None, "ffn_norm": None}
        ),
        *norm("attn_q_norm", "self_attn.q_norm", "q", part=Attention),
        *norm("attn_k_norm", "self_attn.k_norm", "k", part=Attention),
        *norm("post_attention_norm", "post_attention_layernorm"),
        *norm("post_ffw_norm", "post_feedforward_layernorm"),
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), norms="all")
        return Layer(mixer, FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)


ARCHITECTURE = Olmo2()

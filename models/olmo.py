"""OLMo 1: like llama with LayerNorms that have no weights; some clamp queries, keys and values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, unembed
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward
from ggq.models.layers.attention import CLAMP_KEY, Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import Key, absorbed_by, changed, permuted

__all__ = ["ARCHITECTURE"]


def forward(ops: Any, hp: HParams) -> Any:
    """Return the logits of a pre-norm decoder whose norms only center and scale."""

    def normed(x: Any) -> Any:
        return ops.norm(x, None, hp.norm_eps, kind="layer")

    x = ops.embed("token_embd.weight")
    for layer in hp.layers:
        x = ops.add(x, layer.mixer.forward(ops, normed(x)))
        x = ops.add(x, layer.feed.forward(ops, normed(x)))
    return unembed(ops, normed(ops.gather(x)), hp)


class Olmo(Architecture):
    name = "olmo"
    hf_classes = ("OlmoForCausalLM", "OLMoForCausalLM", "OlmoModel")
    hf_model_type = "olmo"
    keys = changed(
        (*DECODER_KEYS, CLAMP_KEY),
        Key(
            "{arch}.attention.layer_norm_epsilon",
            (),
            "norm_eps",
            "f32",
            required=True,
            derive=lambda config: 1e-5,
        ),
        without=("{arch}.attention.layer_norm_rms_epsilon",),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
    }
    tensors = (
        EMBEDDING,
        replace(HEAD[1], absorbs=None),
        *absorbed_by(
            permuted((*attention.TENSORS, *feed_forward.TENSORS)),
            {"attn_norm": None, "ffn_norm": None, "attn_v": None},  # values may be clamped
        ),
    )

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "norm")), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return forward(ops, hp)


ARCHITECTURE = Olmo()

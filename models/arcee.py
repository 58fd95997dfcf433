"""Arcee Foundation Models: like llama with squared ReLUs and no gates."""

from typing import Any

from ggq.models import llama
from ggq.models.base import Architecture
from ggq.models.decoder import EMBEDDING, FF_NORM, HEAD, LLAMA_KEYS, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import UNGATED_TENSORS, FeedForward
from ggq.models.layers.rope import STORED
from ggq.models.table import permuted
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE"]


class Arcee(Architecture):
    name = "arcee"
    hf_classes = ("ArceeForCausalLM",)
    hf_model_type = "arcee"
    keys = LLAMA_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    tensors = (
        EMBEDDING,
        *HEAD,
        *MIXER_NORM,
        *permuted(attention.TENSORS),
        *FF_NORM,
        *UNGATED_TENSORS,
    )
    fixed = {"hidden_act": ("relu2",)}  # noqa: RUF012 - read only
    peer_factors = (STORED,)
    vocab = LLAMA_VOCAB

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "norm"))
        return Layer(mixer, FeedForward.of(values, i, activation="relu2", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = Arcee()

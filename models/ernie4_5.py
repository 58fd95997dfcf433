"""ERNIE 4.5, dense: like llama, but HF's weights rotate adjacent pairs, too."""

from typing import Any

from ggq.models import llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, DECODER_TENSORS
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward

__all__ = ["ARCHITECTURE"]


class Ernie45(Architecture):
    name = "ernie4_5"
    hf_classes = ("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM")
    hf_model_type = "ernie4_5"
    keys = DECODER_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
    }
    tensors = DECODER_TENSORS

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "norm")), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = Ernie45()

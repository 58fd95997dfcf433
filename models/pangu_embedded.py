"""openPangu Embedded 1B and 7B: llama with biases in attention, and halves of heads that rotate."""

from typing import Any

from ggq.models import llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_TENSORS, LLAMA_KEYS
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE"]


class PanguEmbedded(Architecture):
    name = "pangu-embedded"
    hf_classes = ("PanguEmbeddedForCausalLM",)
    hf_model_type = "PanguEmbedded"
    exports = False  # transformers has no class for it
    keys = LLAMA_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 16000000.0,
    }
    reads = ("bias",)
    tensors = DECODER_TENSORS
    vocab = LLAMA_VOCAB

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "neox")), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = PanguEmbedded()

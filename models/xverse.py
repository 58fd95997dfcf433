"""XVERSE 7B to 65B: llama under another name."""

from typing import Any

from ggq.models import llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_TENSORS, LLAMA_KEYS, SEQUENCE_KEY
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import changed, permuted

__all__ = ["ARCHITECTURE"]


class Xverse(Architecture):
    name = "xverse"
    hf_classes = ("XverseForCausalLM",)
    hf_model_type = "xverse"
    exports = False  # transformers has no class for it
    keys = changed(
        LLAMA_KEYS,
        SEQUENCE_KEY,
    )
    config_defaults = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0}  # noqa: RUF012 - read only
    reads = ("max_tokenizer_truncation",)
    rope_types = ("default", "linear")
    tensors = permuted(DECODER_TENSORS)

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "norm")), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = Xverse()

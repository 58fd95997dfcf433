"""Qwen2 and Qwen2.5: like llama with biases on the projections of attention, rope over halves."""

from collections.abc import Iterator, Mapping
from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, DECODER_TENSORS
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward

__all__ = ["ARCHITECTURE"]


class Qwen2(Architecture):
    name = "qwen2"
    hf_classes = ("Qwen2ForCausalLM",)
    hf_model_type = "qwen2"
    reads = ledger.WINDOWS

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        return ledger.windows(config)

    keys = DECODER_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tensors = DECODER_TENSORS

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "neox")), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = Qwen2()

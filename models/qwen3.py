"""Qwen3: RMS norms on every query and key head, an explicit head width."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, DECODER_TENSORS
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import Key

__all__ = ["ARCHITECTURE", "Qwen3"]


class Qwen3(Architecture):
    name = "qwen3"
    hf_classes = ("Qwen3ForCausalLM",)
    hf_model_type = "qwen3"
    reads = ledger.WINDOWS

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        return ledger.windows(config)

    keys: ClassVar[tuple[Key, ...]] = DECODER_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 128,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tensors = (*DECODER_TENSORS, *attention.QK_NORMS)

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), norms="head")
        return Layer(mixer, FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = Qwen3()

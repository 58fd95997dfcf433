"""Qwen2 and Qwen2.5: like llama with biases on the projections of attention, rope over halves."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, DECODER_TENSORS, FF_NORM, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import LAYER, Key, Tensor, changed

__all__ = ["ARCHITECTURE"]


def _also(norm: tuple[Tensor, ...], name: str) -> Tensor:
    """Return a norm that KORMo calls ``name``."""
    return replace(norm[0], fused=(f"{LAYER}{name}.weight", "copy"))


class Qwen2(Architecture):
    name = "qwen2"
    hf_classes: ClassVar[tuple[str, ...]] = (
        *("Qwen2ForCausalLM", "DotsOCRForCausalLM", "KORMoForCausalLM"),
    )
    hf_model_type = "qwen2"
    reads = ledger.WINDOWS

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        return ledger.windows(config)

    keys: ClassVar[tuple[Key, ...]] = DECODER_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tensors = changed(
        DECODER_TENSORS,
        _also(MIXER_NORM, "pre_attention_layernorm"),
        _also(FF_NORM, "pre_mlp_layernorm"),
    )

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "neox")), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = Qwen2()

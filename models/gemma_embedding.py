"""EmbeddingGemma: Gemma 3 whose tokens see both ways, with dense layers after pooling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ggq.models.gemma2 import layers
from ggq.models.gemma3 import Gemma3
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.linear import rms_norm
from ggq.models.table import Key

__all__ = ["ARCHITECTURE"]

BOTH_WAYS = "use_bidirectional_attention"


class GemmaEmbedding(Gemma3):
    name = "gemma-embedding"
    mutual = False
    hf_classes = ("Gemma3TextModel",)
    hf_model_type = "gemma3_text"
    fixed = {**Gemma3.fixed, BOTH_WAYS: (True,)}  # noqa: RUF012 - read only
    keys: ClassVar[tuple[Key, ...]] = (
        *Gemma3.keys,
        Key("{arch}.attention.causal", (), "causal", "bool", default=False, derive=lambda _: False),
    )

    def suits(self, config: Mapping[str, Any]) -> bool:
        return config.get(BOTH_WAYS) is True

    def layer(self, values: Values, i: int) -> Layer:
        made = super().layer(values, i)
        mixer = made.mixer
        assert isinstance(mixer, Attention)
        return replace(made, mixer=replace(mixer, causal=values["causal"]))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return rms_norm(ops, ops.gather(layers(ops, hp)), "output_norm", hp.norm_eps)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return super().export_config(hp) | {BOTH_WAYS: True}


ARCHITECTURE = GemmaEmbedding()

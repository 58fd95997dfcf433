"""Gemma 3: five layers with a window and their own rope base for each that sees all; q/k norms."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ggq.models.gemma2 import GEMMA_TENSORS, Gemma, gemma_keys
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention
from ggq.models.table import plus_one

__all__ = ["ARCHITECTURE"]


class Gemma3(Gemma):
    name = "gemma3"
    hf_classes: ClassVar[tuple[str, ...]] = ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")
    hf_model_type = "gemma3_text"

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        if cap := config.get("attn_logit_softcapping"):
            yield "attn_logit_softcapping", cap, "which transformers ignores and files would follow"

    period = 6
    wide_layers = 62
    norms = "head"
    local_base = 10000.0
    keys = gemma_keys(6)
    config_defaults = {  # noqa: RUF012 - read only
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    }
    tensors = (*GEMMA_TENSORS, *plus_one(attention.QK_NORMS))
    mutual = True  # as tokens of pictures are in transformers and llama.cpp

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        local = flat.get("rope_local_base_freq", self.local_base)
        flat["rope_local"] = {"rope_theta": local, **flat.get("rope_local", {})}
        return flat

    def export_config(self, hp: HParams) -> dict[str, Any]:
        mixers = (layer.find(Attention) for layer in hp.layers)
        local = next((m.rope.base for m in mixers if m and m.window and m.rope), self.local_base)
        return super().export_config(hp) | {"rope_local_base_freq": local}


ARCHITECTURE = Gemma3()

"""Llama 2 and 3.x, Mistral, Mixtral, SmolLM2, TinyLlama and everything built like them."""

from __future__ import annotations

from typing import Any

from ggq.models.blocks import Decoder
from ggq.models.keys import EXPERT_KEYS, LLAMA_KEYS
from ggq.models.tables import MIXTRAL_TENSORS, ROPE_FREQS, permuted

__all__ = ["ARCHITECTURE"]


class Llama(Decoder):
    name = "llama"
    hf_classes = (
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "LLaMAForCausalLM",
        "MixtralForCausalLM",
    )
    hf_model_type = "llama"
    rope_kind = "norm"
    keys = (*LLAMA_KEYS, *EXPERT_KEYS)
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tensors = (*permuted(MIXTRAL_TENSORS), ROPE_FREQS)

    def export_config(self, hp: Any) -> dict[str, Any]:
        if not hp.n_expert:
            return {}
        return {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        return values | {"expert_normalize": True}


ARCHITECTURE = Llama()

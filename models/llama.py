"""Llama 2 and 3.x, Mistral, Mixtral, SmolLM2, TinyLlama and everything built like them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.models.base import Key
from ggq.models.blocks import Decoder
from ggq.models.keys import EXPERT_KEYS, LLAMA_KEYS
from ggq.models.tables import MIXTRAL_TENSORS, ROPE_FREQS, permuted
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE"]


def _window(config: Mapping[str, Any]) -> int | None:
    """Return the window of Mistral 7B 0.1 and its like, whose layers all have it."""
    mistral = config.get("model_type") in ("mistral", "mixtral")
    return config.get("sliding_window") if mistral else None


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
    keys = (
        *LLAMA_KEYS,
        *EXPERT_KEYS,
        Key("{arch}.attention.sliding_window", (), "window", derive=_window),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tensors = (*permuted(MIXTRAL_TENSORS), ROPE_FREQS)
    vocab = LLAMA_VOCAB

    def export_config(self, hp: Any) -> dict[str, Any]:
        if not hp.n_expert and not hp.window:
            return {}
        kind = "Mixtral" if hp.n_expert else "Mistral"
        made = {"architectures": [f"{kind}ForCausalLM"], "model_type": kind.lower()}
        return made | {"sliding_window": hp.window}

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        return values | {"expert_normalize": True}


ARCHITECTURE = Llama()

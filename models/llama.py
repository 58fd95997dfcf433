"""Llama 2 and 3.x, Mistral, SmolLM2, TinyLlama and everything built like them."""

from __future__ import annotations

from ggq.models.blocks import Decoder
from ggq.models.keys import LLAMA_KEYS
from ggq.models.tables import DECODER_TENSORS, ROPE_FREQS, permuted

__all__ = ["ARCHITECTURE"]


class Llama(Decoder):
    name = "llama"
    hf_classes = ("LlamaForCausalLM", "MistralForCausalLM", "LLaMAForCausalLM")
    hf_model_type = "llama"
    rope_kind = "norm"
    keys = LLAMA_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tensors = (*permuted(DECODER_TENSORS), ROPE_FREQS)


ARCHITECTURE = Llama()

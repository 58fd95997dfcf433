"""Llama 2 and 3.x, Mistral, SmolLM2, TinyLlama and everything built like them."""

from __future__ import annotations

from typing import Any

from ggq.models import blocks
from ggq.models.base import Architecture, HParams, Key
from ggq.models.keys import DECODER_KEYS, head_width, with_head_width
from ggq.models.tables import DECODER_TENSORS, ROPE_FREQS, permuted

__all__ = ["ARCHITECTURE"]


class Llama(Architecture):
    name = "llama"
    hf_classes = ("LlamaForCausalLM", "MistralForCausalLM", "LLaMAForCausalLM")
    hf_model_type = "llama"
    rope_kind = "norm"
    keys = (
        *with_head_width(DECODER_KEYS),
        Key("{arch}.vocab_size", ("vocab_size",), "n_vocab"),
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=head_width),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tensors = (*permuted(DECODER_TENSORS), ROPE_FREQS)

    def forward(self, ops: Any, hp: HParams) -> Any:
        return blocks.decoder(ops, hp)


ARCHITECTURE = Llama()

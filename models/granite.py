"""IBM Granite 3: like llama, with factors on embeddings, residuals, scores and logits."""

from typing import Any

from ggq.models.base import Key
from ggq.models.blocks import Decoder
from ggq.models.keys import LLAMA_KEYS
from ggq.models.tables import DECODER_TENSORS, permuted
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE"]


class Granite(Decoder):
    name = "granite"
    hf_classes = ("GraniteForCausalLM",)
    hf_model_type = "granite"
    keys = (
        *LLAMA_KEYS,
        Key("{arch}.attention.scale", ("attention_multiplier",), "attn_scale", "f32"),
        Key("{arch}.embedding_scale", ("embedding_multiplier",), "embedding_scale", "f32"),
        Key("{arch}.residual_scale", ("residual_multiplier",), "residual_scale", "f32"),
        Key("{arch}.logit_scale", ("logits_scaling",), "logit_scale", "f32", required=True),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "attention_multiplier": 1.0,
        "logits_scaling": 1.0,
    }
    tensors = permuted(DECODER_TENSORS)
    vocab = LLAMA_VOCAB

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        divisor = values.get("logit_scale")  # HF and GGUF store what logits are divided by
        return values | {"logit_scale": 1.0 / divisor if divisor else None}


ARCHITECTURE = Granite()

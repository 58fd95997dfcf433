"""Qwen2 and Qwen2.5: like llama with biases on the projections of attention, rope over halves."""

from ggq.models.blocks import Decoder
from ggq.models.keys import DECODER_KEYS
from ggq.models.tables import DECODER_TENSORS

__all__ = ["ARCHITECTURE"]


class Qwen2(Decoder):
    name = "qwen2"
    hf_classes = ("Qwen2ForCausalLM",)
    hf_model_type = "qwen2"
    rope_kind = "neox"
    keys = DECODER_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tensors = DECODER_TENSORS


ARCHITECTURE = Qwen2()

"""Qwen3: RMS norms on every query and key head, an explicit head width."""

from ggq.models.blocks import Decoder
from ggq.models.keys import DECODER_KEYS
from ggq.models.tables import DECODER_TENSORS, QK_NORMS

__all__ = ["ARCHITECTURE"]


class Qwen3(Decoder):
    name = "qwen3"
    hf_classes = ("Qwen3ForCausalLM",)
    hf_model_type = "qwen3"
    rope_kind = "neox"
    keys = DECODER_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 128,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tensors = (*DECODER_TENSORS, *QK_NORMS)


ARCHITECTURE = Qwen3()

"""Mistral Small 3, Ministral 3: like llama, with YaRN and queries that grow with position."""

from typing import Any

from ggq.models.base import Key
from ggq.models.blocks import Decoder
from ggq.models.keys import LLAMA_KEYS, scaled
from ggq.models.tables import DECODER_TENSORS, permuted
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE"]


class Mistral3(Decoder):
    name = "mistral3"
    hf_classes = ("Mistral3ForConditionalGeneration", "Ministral3ForCausalLM")
    hf_model_type = "ministral3"
    keys = (
        *LLAMA_KEYS,
        Key(
            "{arch}.rope.scaling.yarn_log_multiplier",
            attr="rope_log_multiplier",
            type="f32",
            derive=scaled("mscale_all_dim", "yarn"),
        ),
        Key(
            "{arch}.attention.temperature_scale",
            ("rope_parameters.llama_4_scaling_beta",),
            "attn_temperature",
            "f32",
        ),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
    }
    tensors = permuted(DECODER_TENSORS)
    vocab = LLAMA_VOCAB

    def export_config(self, hp: Any) -> dict[str, Any]:
        rope = hp.rope
        if rope.scaling != "yarn":
            return {}
        scaling = {
            "rope_type": "yarn",
            "rope_theta": rope.base,
            "factor": rope.factor,
            "original_max_position_embeddings": rope.original_context,
            "beta_fast": rope.beta_fast,
            "beta_slow": rope.beta_slow,
            "mscale": 1.0,
            "mscale_all_dim": rope.log_multiplier,
            "llama_4_scaling_beta": hp.attn_temperature or 0.0,
        }
        return {"rope_parameters": scaling, "rope_scaling": scaling}


ARCHITECTURE = Mistral3()

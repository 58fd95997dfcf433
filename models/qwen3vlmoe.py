"""The text side of Qwen3-VL with experts: qwen3moe with rope sections."""

from typing import Any

from ggq.models.hparams import HParams
from ggq.models.layers.base import Values
from ggq.models.qwen3moe import Qwen3MoE
from ggq.models.qwen3vl import VISION_KEYS

__all__ = ["ARCHITECTURE"]


class Qwen3VLMoE(Qwen3MoE):
    name = "qwen3vlmoe"
    hf_classes = ("Qwen3VLMoeForConditionalGeneration",)
    hf_model_type = "qwen3_vl_moe_text"
    rope_reads = ("mrope_section", "mrope_interleaved")
    always_normalized = True
    keys = (*Qwen3MoE.keys, *VISION_KEYS)

    def complete(self, values: Values) -> None:
        values["rope_interleaved"] = True

    def export_config(self, hp: HParams) -> dict[str, Any]:
        """Return what makes it the text model alone, which is this one's whole graph."""
        return {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"} | {
            "norm_topk_prob": True
        }


ARCHITECTURE = Qwen3VLMoE()

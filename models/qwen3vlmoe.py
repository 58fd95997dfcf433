"""The text side of Qwen3-VL with experts: qwen3moe with rope sections."""

from ggq.models.layers.base import Values
from ggq.models.qwen3moe import Qwen3MoE
from ggq.models.qwen3vl import VISION_KEYS

__all__ = ["ARCHITECTURE"]


class Qwen3VLMoE(Qwen3MoE):
    name = "qwen3vlmoe"
    hf_classes = ("Qwen3VLMoeForConditionalGeneration",)
    hf_model_type = "qwen3_vl_moe_text"
    rope_reads = ("mrope_section", "mrope_interleaved")
    exports = False
    always_normalized = True
    keys = (*Qwen3MoE.keys, *VISION_KEYS)

    def complete(self, values: Values) -> None:
        values["rope_interleaved"] = True


ARCHITECTURE = Qwen3VLMoE()

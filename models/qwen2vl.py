"""The text side of Qwen2-VL and Qwen2.5-VL: qwen2 with rope sections, one position for text."""

from collections.abc import Mapping
from typing import Any

from ggq.models.hparams import HParams
from ggq.models.layers.rope import sections
from ggq.models.qwen2 import Qwen2
from ggq.models.table import Key

__all__ = ["ARCHITECTURE"]

SECTIONS = [16, 24, 24, 0]  # of all that were published


class Qwen2VL(Qwen2):
    name = "qwen2vl"
    hf_classes = (
        "Qwen2VLForConditionalGeneration",
        "Qwen2_5_VLForConditionalGeneration",
    )
    hf_model_type = "qwen2_vl_text"
    rope_reads = ("mrope_section",)
    keys = (
        *Qwen2.keys,
        Key(
            "{arch}.rope.dimension_sections", (), "rope_sections", "u32s", derive=sections(SECTIONS)
        ),
    )

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        if flat["rope_parameters"].get("rope_type") == "mrope":  # sections alone, of older files
            flat["rope_parameters"]["rope_type"] = "default"
        return flat

    def export_config(self, hp: HParams) -> dict[str, Any]:
        """Return what makes it the text model alone, which is this one's whole graph."""
        return {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}


ARCHITECTURE = Qwen2VL()

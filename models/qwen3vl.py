"""The text side of Qwen3-VL: qwen3 with rope sections, which are one position for text."""

from collections.abc import Mapping
from typing import Any

from ggq.models.hparams import HParams
from ggq.models.layers.base import Values
from ggq.models.layers.rope import sections
from ggq.models.qwen3 import Qwen3
from ggq.models.table import Key

__all__ = ["ARCHITECTURE", "VISION_KEYS"]

SECTIONS = [24, 20, 20, 0]  # transformers' default


def _deepstack(config: Mapping[str, Any]) -> int:
    """Return how many layers take image features; text alone needs none of them."""
    vision = config.get("vision_config")
    return len((vision if isinstance(vision, Mapping) else {}).get("deepstack_visual_indexes", ()))


VISION_KEYS = (
    Key("{arch}.rope.dimension_sections", (), "rope_sections", "u32s", derive=sections(SECTIONS)),
    Key("{arch}.n_deepstack_layers", attr="deepstack", derive=_deepstack),
)


class Qwen3VL(Qwen3):
    name = "qwen3vl"
    hf_classes = ("Qwen3VLForConditionalGeneration",)
    hf_model_type = "qwen3_vl_text"
    rope_reads = ("mrope_section", "mrope_interleaved")
    keys = (*Qwen3.keys, *VISION_KEYS)

    def complete(self, values: Values) -> None:
        values["rope_interleaved"] = True

    def export_config(self, hp: HParams) -> dict[str, Any]:
        """Return what makes it the text model alone, which is this one's whole graph."""
        return {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}


ARCHITECTURE = Qwen3VL()

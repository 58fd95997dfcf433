"""The eyes of Idefics3 and SmolVLM: SigLIP, the patches of a square side by side, one matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.models.layers.linear import linear
from ggq.models.vision.sight import Sight, View
from ggq.models.vision.siglip import Square, encoded, siglip_rows
from ggq.models.vision.vit import matrix

__all__ = ["TOWERS"]


class Idefics3(Square):
    projector = "idefics3"
    hf_classes = ("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration")
    prefixes = ("model.vision_model.", "model.connector.")
    merge = 2
    tensors = (
        *siglip_rows("model.vision_model.", role="kept"),
        *matrix("mm.model.fc", "model.connector.modality_projection.proj", ("text", "area*embd")),
    )

    def settings(self, vision: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        size = config["preprocessor"].get("size") or {}
        patch = vision.get("patch_size") or 1
        smol = vision.get("model_type") == "smolvlm_vision"  # whose folders leave sizes out
        usual = {"n_embd": 1152, "n_head": 16, "n_ff": 3072} if smol else {}
        names = {"n_embd": "hidden_size", "n_head": "num_attention_heads"}
        names["n_ff"] = "intermediate_size"
        return {
            **{k: vision.get(names[k], v) for k, v in usual.items()},
            "use_gelu": True,
            "merge": config.get("scale_factor", 2),
            "longest_edge": size.get("longest_edge", vision.get("image_size")),
            "sizes": {"positions": (vision.get("image_size", 0) // patch) ** 2},
        }

    def forward(self, ops: Any, sight: Sight, view: View) -> Any:
        x = encoded(ops, sight, self.positions(ops, sight, view))
        return linear(ops, ops.regroup(x, view.tokens(sight.merge), "join"), "mm.model.fc")


TOWERS = (Idefics3(),)

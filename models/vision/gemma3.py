"""Gemma 3's eyes: SigLIP, means of squares of patches, a norm, one matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.models.layers.linear import rms_norm
from ggq.models.table import Tensor
from ggq.models.vision.sight import Sight, View
from ggq.models.vision.siglip import Square, encoded, siglip_rows
from ggq.models.vision.vit import vector

__all__ = ["TOWERS"]


class Gemma3(Square):
    projector = "gemma3"
    hf_classes = ("Gemma3ForConditionalGeneration",)
    texts = ("gemma3",)
    prefixes = ("vision_tower.", "multi_modal_projector.")
    renames = {  # noqa: RUF012 - read only
        "model.vision_tower.": "vision_tower.",
        "model.multi_modal_projector.": "multi_modal_projector.",
        "vision_tower.": "vision_tower.vision_model.",
    }
    merge = 4
    tensors = (
        *siglip_rows("vision_tower.vision_model.", role="kept"),
        vector(
            "mm.soft_emb_norm.weight",
            "multi_modal_projector.mm_soft_emb_norm.weight",
            transform="plus_one",
        ),
        Tensor(
            "mm.input_projection.weight",
            ("multi_modal_projector.mm_input_projection_weight",),
            ("embd", "text"),
            role="half",
        ),
    )

    def settings(self, vision: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        side = int((config["preprocessor"].get("image_seq_length") or 256) ** 0.5)
        merge = vision.get("image_size", 0) // (vision.get("patch_size") or 1) // max(side, 1)
        positions = (vision.get("image_size", 0) // (vision.get("patch_size") or 1)) ** 2
        return {
            "use_gelu": True,
            "merge": merge if merge > 0 and merge != self.merge else None,
            "sizes": {"positions": positions},
        }

    def forward(self, ops: Any, sight: Sight, view: View) -> Any:
        x = encoded(ops, sight, self.positions(ops, sight, view))
        x = ops.regroup(x, view.tokens(sight.merge), "mean")
        x = rms_norm(ops, x, "mm.soft_emb_norm", sight.eps)
        return ops.linear(x, "mm.input_projection.weight.T")


TOWERS = (Gemma3(),)

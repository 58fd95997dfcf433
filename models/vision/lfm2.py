"""LFM2-VL's eyes: SigLIP 2 at any size (arXiv 2502.14786), squares of patches, two matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.errors import ModelError
from ggq.models.layers.linear import layer_norm
from ggq.models.vision.positions import check_square, resized
from ggq.models.vision.sight import Sight, View
from ggq.models.vision.siglip import encoded, siglip_rows
from ggq.models.vision.tower import Tower
from ggq.models.vision.vit import matrix, norm, perceptron

__all__ = ["TOWERS"]

PROJECTOR_EPS = 1e-5  # torch's


class Lfm2(Tower):
    projector = "lfm2"
    hf_classes = ("Lfm2VlForConditionalGeneration",)
    texts = ("lfm2", "lfm2moe")
    prefixes = ("model.vision_tower.", "model.multi_modal_projector.")
    renames = {"model.vision_tower.": "model.vision_tower.vision_model."}  # noqa: RUF012 - read only
    merge = 2
    checks = (check_square,)
    tensors = (
        *siglip_rows("model.vision_tower.vision_model.", role="patch", transform="last_colour"),
        *norm("mm.input_norm", "model.multi_modal_projector.layer_norm", "joined", optional=True),
        *matrix("mm.1", "model.multi_modal_projector.linear_1", ("hidden", "area*embd")),
        *matrix("mm.2", "model.multi_modal_projector.linear_2", ("text", "hidden")),
    )

    def settings(self, vision: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        layer = config.get("vision_feature_layer", -1)
        if not isinstance(layer, int) or layer >= 0:
            raise ModelError(f"config.json: vision_feature_layer is {layer}, expected -1 or below")
        if config.get("projector_hidden_act", "gelu") != "gelu":
            raise ModelError("config.json: projector_hidden_act is not gelu")
        merge, n_embd = config.get("downsample_factor", 2), vision.get("hidden_size", 0)
        return {
            "use_gelu": True,
            "merge": merge,
            "image_size": 256,  # any size is seen; llama.cpp's files say this
            "n_layer": vision.get("num_hidden_layers", 0) + layer + 1,
            "sizes": {
                "positions": vision.get("num_patches", 256),
                "hidden": config.get("projector_hidden_size", 2560),
                "joined": merge**2 * n_embd,
            },
        }

    def forward(self, ops: Any, sight: Sight, view: View) -> Any:
        table = ops.weight("v.position_embd.weight").dequantized()
        x = encoded(ops, sight, resized(table, view, corners=False))
        x = ops.regroup(x, view.tokens(sight.merge), "join")
        if ops.has("mm.input_norm.weight"):
            x = layer_norm(ops, x, "mm.input_norm", PROJECTOR_EPS)
        return perceptron(ops, x, "mm.1", "mm.2")


TOWERS = (Lfm2(),)

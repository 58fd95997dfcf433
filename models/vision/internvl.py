"""InternVL's eyes (arXiv 2312.14238): squares, a row of the class before patches, scaled layers.

The class's row is the table's first position here, as in transformers; llama.cpp puts the row last
and so shifts every patch's position by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ggq.errors import ModelError
from ggq.models.layers.linear import layer_norm
from ggq.models.table import Tensor
from ggq.models.vision.sight import Sight, View
from ggq.models.vision.tower import Tower, scaled
from ggq.models.vision.vit import (
    BLOCK,
    attend,
    embedded,
    feed,
    matrix,
    norm,
    normed,
    patch_rows,
    perceptron,
    vector,
)

__all__ = ["TOWERS"]

MODEL, LAYER = "vision_tower.embeddings.", "vision_tower.encoder.layer.{i}."
PROJECTOR = "multi_modal_projector."
PROJECTOR_EPS = 1e-5  # torch's


def _heads(name: str) -> tuple[Tensor, ...]:
    """Return the rows of queries, keys or values: apart, or in OpenGVLab's folders in one."""
    weight, bias = matrix(f"{BLOCK}attn_{name}", f"{LAYER}attention.{name}_proj", ("q", "embd"))
    fused = f"{LAYER}attention.qkv.", f"part_{name}"
    return tuple(
        replace(row, fused=(f"{fused[0]}{end}", fused[1]))
        for row, end in ((weight, "weight"), (bias, "bias"))
    )


def _check_positions(sight: Sight) -> None:
    side = sight.image_size // sight.patch
    if sight.sizes.get("positions", side**2 + 1) != side**2 + 1:
        what = f"v.position_embd.weight: {sight.sizes['positions']} positions"
        raise ModelError(f"{what} of {side} x {side} patches and a class")


class InternVL(Tower):
    projector = "internvl"
    hf_classes = ("InternVLForConditionalGeneration", "InternVLChatModel")
    prefixes = ("vision_tower.", "multi_modal_projector.")
    renames = {  # noqa: RUF012 - read only
        "model.vision_tower.": "vision_tower.",
        "model.multi_modal_projector.": "multi_modal_projector.",
        "vision_model.embeddings.class_embedding": f"{MODEL}cls_token",
        "vision_model.embeddings.patch_embedding.": f"{MODEL}patch_embeddings.projection.",
        "vision_model.embeddings.position_embedding": f"{MODEL}position_embeddings",
        "vision_model.encoder.layers.": "vision_tower.encoder.layer.",
        "attn.proj.": "attention.projection_layer.",
        "attn.qkv.": "attention.qkv.",
        "attn.q_norm.": "attention.q_norm.",
        "attn.k_norm.": "attention.k_norm.",
        ".norm1.": ".layernorm_before.",
        ".norm2.": ".layernorm_after.",
        ".ls1": ".lambda_1",
        ".ls2": ".lambda_2",
        "mlp1.0.": f"{PROJECTOR}layer_norm.",
        "mlp1.1.": f"{PROJECTOR}linear_1.",
        "mlp1.3.": f"{PROJECTOR}linear_2.",
    }
    merge = 2
    checks = (_check_positions,)
    gelu = "gelu"
    tensors = (
        *patch_rows(f"{MODEL}patch_embeddings.projection"),
        Tensor("v.class_embd", (f"{MODEL}cls_token",), ("1", "1", "embd"), role="kept", f32=True),
        Tensor(
            "v.position_embd.weight",
            (f"{MODEL}position_embeddings",),
            ("1", "positions", "embd"),
            role="kept",
            f32=True,
        ),
        *norm(f"{BLOCK}ln1", f"{LAYER}layernorm_before"),
        *_heads("q"),
        *_heads("k"),
        *_heads("v"),
        *matrix(f"{BLOCK}attn_out", f"{LAYER}attention.projection_layer", ("embd", "q")),
        vector(f"{BLOCK}ls1.weight", f"{LAYER}lambda_1"),
        *norm(f"{BLOCK}ln2", f"{LAYER}layernorm_after"),
        *matrix(f"{BLOCK}ffn_up", f"{LAYER}mlp.fc1", ("ff", "embd")),
        *matrix(f"{BLOCK}ffn_down", f"{LAYER}mlp.fc2", ("embd", "ff")),
        vector(f"{BLOCK}ls2.weight", f"{LAYER}lambda_2"),
        *norm("mm.model.mlp.0", f"{PROJECTOR}layer_norm", "joined"),
        *matrix("mm.model.mlp.1", f"{PROJECTOR}linear_1", ("text", "area*embd")),
        *matrix("mm.model.mlp.3", f"{PROJECTOR}linear_2", ("text", "text")),
    )

    def settings(self, vision: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        size, patch = (_side(vision.get(name)) for name in ("image_size", "patch_size"))
        merge = scaled(config.get("downsample_ratio", 0.5))
        qk = vision.get("use_qk_norm") or vision.get("qk_normalization")
        if qk or vision.get("hidden_act", "gelu") != "gelu":
            raise ModelError("config.json: vision_config has norms of heads or another activation")
        if config.get("vision_feature_layer", config.get("select_layer", -1)) != -1:
            raise ModelError("config.json: vision_feature_layer is not -1")
        return {
            "use_gelu": True,
            "n_text": (config.get("text_config") or config.get("llm_config") or {}).get(
                "hidden_size"
            ),
            "image_size": size,
            "patch": patch,
            "merge": merge,
            "min_tiles": config.get("min_dynamic_patch") or None,
            "max_tiles": config.get("max_dynamic_patch") or None,
            "sizes": {
                "positions": (size // max(patch, 1)) ** 2 + 1,
                "joined": merge**2 * vision.get("hidden_size", 0),
            },
        }

    def forward(self, ops: Any, sight: Sight, view: View) -> Any:
        table = ops.weight("v.position_embd.weight").dequantized()[0]
        if len(table) != view.n + 1:
            size = sight.image_size
            raise ModelError(f"internvl sees squares of {size} x {size} pixels")
        first = table[:1] + ops.weight("v.class_embd").dequantized()[0]
        x = ops.add(ops.given(table[1:]), embedded(ops, sight))
        x, eps = ops.above(first, x), sight.eps
        for i in range(sight.n_layer):
            y = attend(ops, sight, i, normed(ops, x, f"v.blk.{i}.ln1", eps))
            x = ops.add(x, ops.gain(y, f"v.blk.{i}.ls1.weight"))
            y = feed(ops, sight, i, normed(ops, x, f"v.blk.{i}.ln2", eps))
            x = ops.add(x, ops.gain(y, f"v.blk.{i}.ls2.weight"))
        x = ops.regroup(x, view.tokens(sight.merge) + 1, "join")
        x = layer_norm(ops, x, "mm.model.mlp.0", PROJECTOR_EPS)
        return perceptron(ops, x, "mm.model.mlp.1", "mm.model.mlp.3")


def _side(size: Any) -> int:
    """Return the side of a square that some configs say as [side, side]; ModelError for others."""
    sides = size if isinstance(size, list) else [size]
    if not all(isinstance(s, int) and s > 0 for s in sides) or len(set(sides)) != 1:
        raise ModelError(f"config.json: vision_config has sizes {sides}, expected a square's")
    return int(np.asarray(sides).ravel()[0])


TOWERS = (InternVL(),)

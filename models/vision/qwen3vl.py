"""The eyes of Qwen3-VL (arXiv 2511.21631) and Qwen3.5: any size, learned positions and rotations.

What some layers see goes to the text model's first layers, too (arXiv 2406.04334).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.errors import ModelError
from ggq.models.layers.linear import layer_norm
from ggq.models.vision.positions import axial, check_square, check_turns, resized
from ggq.models.vision.qwen2vl import FRAMES, ROPE_BASE, both_frames
from ggq.models.vision.sight import Sight, View
from ggq.models.vision.tower import Tower
from ggq.models.vision.vit import (
    BLOCK,
    attend,
    feed,
    matrix,
    norm,
    perceptron,
    vector,
    whole,
)

__all__ = ["TOWERS"]

LAYER = "visual.blocks.{i}."
DEEP, DEEPER = "v.deepstack.{i}.", "visual.deepstack_merger_list.{j}."
STACK: dict[str, Any] = {"role": "deepstack"}


class Qwen3VL(Tower):
    projector = "qwen3vl_merger"
    hf_classes = (
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration",
    )
    texts = ("qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe")
    prefixes = ("visual.",)
    renames = {"model.visual.": "visual."}  # noqa: RUF012 - read only
    merge = 2
    merge_key = "clip.vision.spatial_merge_size"
    checks = (check_turns, check_square)
    tensors = (
        *FRAMES,
        vector("v.patch_embd.bias", "visual.patch_embed.proj.bias"),
        whole("v.position_embd.weight", "visual.pos_embed.weight"),
        *norm(f"{BLOCK}ln1", f"{LAYER}norm1"),
        *matrix(f"{BLOCK}attn_qkv", f"{LAYER}attn.qkv", ("3*q", "embd")),
        *matrix(f"{BLOCK}attn_out", f"{LAYER}attn.proj", ("embd", "q")),
        *norm(f"{BLOCK}ln2", f"{LAYER}norm2"),
        *matrix(f"{BLOCK}ffn_up", f"{LAYER}mlp.linear_fc1", ("ff", "embd")),
        *matrix(f"{BLOCK}ffn_down", f"{LAYER}mlp.linear_fc2", ("embd", "ff")),
        *(replace(r, role="deepstack") for r in norm(f"{DEEP}norm", f"{DEEPER}norm", "joined")),
        *matrix(f"{DEEP}fc1", f"{DEEPER}linear_fc1", ("area*embd", "area*embd"), **STACK),
        *matrix(f"{DEEP}fc2", f"{DEEPER}linear_fc2", ("text", "area*embd"), **STACK),
        *norm("v.post_ln", "visual.merger.norm"),
        *matrix("mm.0", "visual.merger.linear_fc1", ("area*embd", "area*embd")),
        *matrix("mm.2", "visual.merger.linear_fc2", ("text", "area*embd")),
    )

    def settings(self, vision: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        positions, patch = vision.get("num_position_embeddings", 2304), vision.get("patch_size", 16)
        n_layer, merge = vision.get("depth") or 0, vision.get("spatial_merge_size", 2)
        deep = vision.get("deepstack_visual_indexes") or []
        if any(not isinstance(i, int) or not 0 <= i < n_layer for i in deep):
            raise ModelError(f"config.json: deepstack_visual_indexes {deep} of {n_layer} layers")
        if list(deep) != sorted(set(deep)):
            raise ModelError(f"config.json: deepstack_visual_indexes {deep} do not ascend")
        if vision.get("hidden_act", "gelu_pytorch_tanh") != "gelu_pytorch_tanh":
            raise ModelError("config.json: vision_config.hidden_act is not gelu_pytorch_tanh")
        return {
            "use_gelu": True,
            "merge": merge,
            "image_size": vision.get("image_size") or int(positions**0.5 * patch),
            "eps": (config.get("text_config") or {}).get("rms_norm_eps", 1e-6),
            "deep": [i in deep for i in range(n_layer)],
            "sizes": {"positions": positions, "joined": merge**2 * vision.get("hidden_size", 0)},
        }

    def forward(self, ops: Any, sight: Sight, view: View) -> Any:
        table, eps = ops.weight("v.position_embd.weight").dequantized(), sight.eps
        x = ops.add(ops.given(resized(table, view, corners=True)), both_frames(ops, sight))
        turn = axial(view, sight.head_dim // 2, ROPE_BASE), "neox"
        deeper = []
        for i in range(sight.n_layer):
            x = ops.add(x, attend(ops, sight, i, layer_norm(ops, x, f"v.blk.{i}.ln1", eps), turn))
            x = ops.add(x, feed(ops, sight, i, layer_norm(ops, x, f"v.blk.{i}.ln2", eps)))
            if i in sight.deepstack:
                y = ops.regroup(x, view.tokens(sight.merge), "join")
                y, p = layer_norm(ops, y, f"v.deepstack.{i}.norm", eps), f"v.deepstack.{i}.fc"
                deeper.append(perceptron(ops, y, f"{p}1", f"{p}2"))
        x = ops.regroup(layer_norm(ops, x, "v.post_ln", eps), view.tokens(sight.merge), "join")
        rows = perceptron(ops, x, "mm.0", "mm.2")
        for y in deeper:
            rows = ops.join(rows, y, 1)
        return rows


TOWERS = (Qwen3VL(),)

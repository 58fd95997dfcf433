"""The eyes of Pixtral (arXiv 2410.07073) and Mistral 3: any size, rotations, RMS norms, gates.

Mistral 3 merges squares of patches before its projector. Between two rows of tokens stands the
embedding of [IMG_BREAK], which some files hold; of others it is a token of the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ggq.errors import ModelError
from ggq.models.layers.linear import linear, rms_norm
from ggq.models.table import Tensor
from ggq.models.vision.positions import axial, check_turns
from ggq.models.vision.sight import Sight, View
from ggq.models.vision.tower import Tower
from ggq.models.vision.vit import (
    BLOCK,
    attend,
    embedded,
    feed,
    matrix,
    patch_rows,
    perceptron,
    vector,
)

__all__ = ["BREAK", "TOWERS"]

LAYER = "vision_tower.transformer.layers.{i}."
BREAK = "v.token_embd.img_break"
ROPE_BASE = 10000.0


class Pixtral(Tower):
    projector = "pixtral"
    hf_classes = ("LlavaForConditionalGeneration", "Mistral3ForConditionalGeneration")
    prefixes = ("vision_tower.", "multi_modal_projector.")
    renames = {  # noqa: RUF012 - read only
        "model.vision_tower.": "vision_tower.",
        "model.multi_modal_projector.": "multi_modal_projector.",
    }
    merge_key = "clip.vision.spatial_merge_size"
    checks = (check_turns,)
    gelu = "gelu"
    tensors = (
        *patch_rows("vision_tower.patch_conv"),
        vector("v.pre_ln.weight", "vision_tower.ln_pre.weight"),
        vector(f"{BLOCK}ln1.weight", f"{LAYER}attention_norm.weight"),
        *matrix(f"{BLOCK}attn_q", f"{LAYER}attention.q_proj", ("q", "embd"), transform="permute_q"),
        *matrix(f"{BLOCK}attn_k", f"{LAYER}attention.k_proj", ("q", "embd"), transform="permute_k"),
        *matrix(f"{BLOCK}attn_v", f"{LAYER}attention.v_proj", ("q", "embd")),
        *matrix(f"{BLOCK}attn_out", f"{LAYER}attention.o_proj", ("embd", "q")),
        vector(f"{BLOCK}ln2.weight", f"{LAYER}ffn_norm.weight"),
        *matrix(f"{BLOCK}ffn_gate", f"{LAYER}feed_forward.gate_proj", ("ff", "embd")),
        *matrix(f"{BLOCK}ffn_up", f"{LAYER}feed_forward.up_proj", ("ff", "embd")),
        *matrix(f"{BLOCK}ffn_down", f"{LAYER}feed_forward.down_proj", ("embd", "ff")),
        vector("mm.input_norm.weight", "multi_modal_projector.norm.weight", optional=True),
        Tensor(
            "mm.patch_merger.weight",
            ("multi_modal_projector.patch_merger.merging_layer.weight",),
            ("embd", "area*embd"),
            role="patch",
            optional=True,
        ),
        *matrix("mm.1", "multi_modal_projector.linear_1", ("hidden", "embd")),
        *matrix("mm.2", "multi_modal_projector.linear_2", ("text", "hidden")),
        # llama.cpp's converter writes it of Mistral's own folders; else it is a prompt's token.
        Tensor(BREAK, (), ("text",), role="kept", f32=True, optional=True),
    )

    def suits(self, config: Mapping[str, Any]) -> bool:
        return bool(config["vision_config"].get("model_type") == "pixtral")

    def settings(self, vision: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        act, base = vision.get("hidden_act", "gelu"), vision.get("rope_theta")
        base = (vision.get("rope_parameters") or {}).get("rope_theta", base or ROPE_BASE)
        wanted = {
            "hidden_act": act in ("gelu", "silu"),
            "rope_theta": base == ROPE_BASE,
            "head_dim": vision.get("head_dim") in (None, self._width(vision)),
        }
        for name, right in wanted.items():
            if not right:
                raise ModelError(f"config.json: vision_config.{name} is {vision.get(name)}")
        if config.get("vision_feature_layer", -1) != -1:
            raise ModelError("config.json: vision_feature_layer is not -1")
        if config.get("projector_hidden_act", "gelu") != "gelu":
            raise ModelError("config.json: projector_hidden_act is not gelu")
        text = config.get("text_config") or {}
        return {
            "use_silu" if act == "silu" else "use_gelu": True,
            "eps": vision.get("layer_norm_eps", 1e-5),
            "merge": config.get("spatial_merge_size"),
            "sizes": {"hidden": text.get("hidden_size", 0)},
        }

    def _width(self, vision: Mapping[str, Any]) -> int:
        return int(vision.get("hidden_size", 0) // (vision.get("num_attention_heads") or 1))

    def _stored(self, gguf: Any) -> dict[str, Any]:
        return super()._stored(gguf) | {"breaks": BREAK in gguf.tensors}

    def forward(self, ops: Any, sight: Sight, view: View) -> Any:
        x, eps = rms_norm(ops, embedded(ops, sight), "v.pre_ln", sight.eps), sight.eps
        turn = axial(view, sight.head_dim // 2, ROPE_BASE, turns=True), "norm"
        for i in range(sight.n_layer):
            x = ops.add(x, attend(ops, sight, i, rms_norm(ops, x, f"v.blk.{i}.ln1", eps), turn))
            x = ops.add(x, feed(ops, sight, i, rms_norm(ops, x, f"v.blk.{i}.ln2", eps)))
        if ops.has("mm.patch_merger.weight"):
            x = rms_norm(ops, x, "mm.input_norm", eps)
            x = ops.regroup(x, view.tokens(sight.merge), "interleave")
            x = linear(ops, x, "mm.patch_merger")
        return perceptron(ops, x, "mm.1", "mm.2")

    def finish(self, ops: Any, sight: Sight, rows: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        if not sight.breaks:
            return rows
        between = np.broadcast_to(
            ops.weight(BREAK).dequantized().ravel(), (grid[0], 1, sight.n_text)
        )
        each = np.concatenate([rows.reshape(*grid, -1), between], axis=1)
        return np.ascontiguousarray(each.reshape(-1, sight.n_text)[:-1], np.float32)


TOWERS = (Pixtral(),)

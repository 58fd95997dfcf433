"""Qwen2-VL's and Qwen2.5-VL's eyes (arXiv 2409.12191, 2502.13923): any size, rotations by place.

Qwen2.5-VL sees windows in most layers: rows are put in the windows' order first and the tokens back
in the picture's at the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ggq.errors import ModelError
from ggq.models.table import Tensor
from ggq.models.vision.positions import axial, check_turns
from ggq.models.vision.sight import Sight, View
from ggq.models.vision.tower import Tower
from ggq.models.vision.vit import (
    BLOCK,
    SHAPE,
    attend,
    embedded,
    feed,
    matrix,
    norm,
    normed,
    perceptron,
)

__all__ = ["FRAMES", "TOWERS", "both_frames"]

LAYER = "visual.blocks.{i}."
ROPE_BASE = 10000.0
WINDOW = 112  # pixels of a window's side
# A convolution over two frames; a picture is a film of two equal ones.
FRAMES = (
    Tensor(
        "v.patch_embd.weight",
        ("visual.patch_embed.proj.weight",),
        SHAPE,
        transform="first_frame",
        role="patch",
    ),
    Tensor(
        "v.patch_embd.weight.1",
        ("visual.patch_embed.proj.weight",),
        SHAPE,
        transform="second_frame",
        role="patch",
    ),
)


def _check_windows(sight: Sight) -> None:
    if sight.windowed and sight.multiple > WINDOW:
        what = f"tokens of {sight.multiple} pixels in windows of {WINDOW}"
        raise ModelError(f"{sight.projector}: {what}")


def both_frames(ops: Any, sight: Sight) -> Any:
    """Return the patches of two equal frames as rows of activations, (n, n_embd)."""
    return ops.add(embedded(ops, sight), ops.linear(ops.patches(), "v.patch_embd.weight.1"))


class Qwen2VL(Tower):
    projector = "qwen2vl_merger"
    hf_classes: ClassVar[tuple[str, ...]] = ("Qwen2VLForConditionalGeneration", "Qwen2VLModel")
    texts = ("qwen2vl",)
    prefixes = ("visual.",)
    renames = {"model.visual.": "visual."}  # noqa: RUF012 - read only
    merge = 2
    merge_key = ""  # files do not say it
    checks: ClassVar[tuple[Any, ...]] = (check_turns, _check_windows)
    tensors = (
        *FRAMES,
        *norm(f"{BLOCK}ln1", f"{LAYER}norm1"),
        *matrix(f"{BLOCK}attn_q", f"{LAYER}attn.qkv", ("q", "embd"), transform="part_q"),
        *matrix(f"{BLOCK}attn_k", f"{LAYER}attn.qkv", ("q", "embd"), transform="part_k"),
        *matrix(f"{BLOCK}attn_v", f"{LAYER}attn.qkv", ("q", "embd"), transform="part_v"),
        *matrix(f"{BLOCK}attn_out", f"{LAYER}attn.proj", ("embd", "q")),
        *norm(f"{BLOCK}ln2", f"{LAYER}norm2"),
        *matrix(f"{BLOCK}ffn_up", f"{LAYER}mlp.fc1", ("ff", "embd")),
        *matrix(f"{BLOCK}ffn_down", f"{LAYER}mlp.fc2", ("embd", "ff")),
        *norm("v.post_ln", "visual.merger.ln_q"),
        *matrix("mm.0", "visual.merger.mlp.0", ("area*embd", "area*embd")),
        *matrix("mm.2", "visual.merger.mlp.2", ("text", "area*embd")),
    )

    def settings(self, vision: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        if vision.get("spatial_merge_size", 2) != self.merge:
            raise ModelError("config.json: vision_config.spatial_merge_size is not 2")
        if vision.get("hidden_act", "quick_gelu") != "quick_gelu":
            raise ModelError("config.json: vision_config.hidden_act is not quick_gelu")
        n_embd = vision.get("embed_dim", 0)
        return {
            "n_embd": n_embd,
            "n_ff": vision.get("hidden_size"),  # as llama.cpp's files say it; tensors know better
            "image_size": vision.get("image_size", 560),
            "eps": config.get("rms_norm_eps", 1e-6),
            "sizes": {"ff": int(n_embd * vision.get("mlp_ratio", 4))},
        }

    def forward(self, ops: Any, sight: Sight, view: View) -> Any:
        x, eps = both_frames(ops, sight), sight.eps
        order, windows = self._order(sight, view)
        if windows is not None:
            x = ops.regroup(x, order[:, None], "join")
        turn = axial(view, sight.head_dim // 2, ROPE_BASE)[order], "neox"
        for i in range(sight.n_layer):
            alone = windows is not None and (i + 1) % sight.windowed != 0
            seen = normed(ops, x, f"v.blk.{i}.ln1", eps)
            x = ops.add(x, attend(ops, sight, i, seen, turn, windows if alone else None))
            x = ops.add(x, feed(ops, sight, i, normed(ops, x, f"v.blk.{i}.ln2", eps)))
        x = normed(ops, x, "v.post_ln", eps)
        x = ops.regroup(x, np.argsort(order)[view.tokens(sight.merge)], "join")
        return perceptron(ops, x, "mm.0", "mm.2")

    def _order(self, sight: Sight, view: View) -> tuple[np.ndarray, list[int] | None]:
        """Return the patches window by window, and where each window ends; None: there are none."""
        if not sight.windowed:
            return np.arange(view.n), None
        side = WINDOW // sight.multiple * sight.merge
        windows = view.tiles(side, side)
        return np.concatenate(windows), np.cumsum([len(w) for w in windows]).tolist()


class Qwen25VL(Qwen2VL):
    projector = "qwen2.5vl_merger"
    hf_classes = ("Qwen2_5_VLForConditionalGeneration",)
    tensors = (
        *(row for row in Qwen2VL.tensors if "ffn_" not in row.gguf),
        *matrix(f"{BLOCK}ffn_gate", f"{LAYER}mlp.gate_proj", ("ff", "embd")),
        *matrix(f"{BLOCK}ffn_up", f"{LAYER}mlp.up_proj", ("ff", "embd")),
        *matrix(f"{BLOCK}ffn_down", f"{LAYER}mlp.down_proj", ("embd", "ff")),
    )

    def settings(self, vision: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        full = vision.get("fullatt_block_indexes") or []
        period = full[0] + 1 if full else 0
        regular = all(b - a == period for a, b in itertools.pairwise(full))
        if not period or not regular:
            raise ModelError(f"config.json: fullatt_block_indexes {full} are not every n-th layer")
        for name, value in (("window_size", WINDOW), ("hidden_act", "silu")):
            if vision.get(name, value) != value:
                raise ModelError(f"config.json: vision_config.{name} is not {value}")
        return {
            "use_silu": True,
            "windowed": period,
            "image_size": vision.get("image_size", 560),
            "eps": config.get("rms_norm_eps", 1e-6),
        }


TOWERS = (Qwen2VL(), Qwen25VL())

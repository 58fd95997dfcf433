"""Gemma 4's eyes: any size, positions and rotations by row and column, norms on both sides.

The matrices of some sizes clamp what goes in and out; patches of 3 x 3 are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ggq.errors import ModelError, UsageError
from ggq.models.layers.linear import rms_norm
from ggq.models.table import Tensor
from ggq.models.vision.positions import axial, check_turns
from ggq.models.vision.sight import Sight, View
from ggq.models.vision.tower import Tower, cut
from ggq.models.vision.vit import BLOCK, embedded, matrix, patch_rows, vector, whole

__all__ = ["TOWERS"]

LAYER = "model.vision_tower.encoder.layers.{i}."
ROPE_BASE = 100.0
LIMITS = ("input_min", "input_max", "output_min", "output_max")


def _clipped(gguf: str, hf: str, shape: tuple[str, ...]) -> tuple[Tensor, ...]:
    """Return the rows of a weight and of the limits that it may have."""
    weight = matrix(gguf, f"{hf}.linear", shape)[0]
    limits = (
        vector(f"{gguf}.{n}", f"{hf}.{n}", "1", transform="number", optional=True) for n in LIMITS
    )
    return weight, *limits


def _clamped(ops: Any, x: Any, name: str) -> Any:
    """Return x @ W.T for ``name``.weight, before and after within the limits that it has."""
    for side in ("input", "output"):
        if side == "output":
            x = ops.linear(x, f"{name}.weight")
        if ops.has(f"{name}.{side}_max"):
            high, low = ops.number(f"{name}.{side}_max"), ops.number(f"{name}.{side}_min")
            x = ops.clamp(x, high, low)
    return x


class Gemma4(Tower):
    projector = "gemma4v"
    type_key = "clip.vision.projector_type"  # such files may hold ears, too
    hf_classes = ("Gemma4ForConditionalGeneration",)
    texts = ("gemma4",)
    checks = (check_turns,)
    prefixes = ("model.vision_tower.", "model.embed_vision.")
    merge = 3
    merge_key = ""  # files do not say it
    tensors = (
        *patch_rows("model.vision_tower.patch_embedder.input_proj", transform="last_colour")[:1],
        whole(
            "v.position_embd.weight",
            "model.vision_tower.patch_embedder.position_embedding_table",
            ("2", "positions", "embd"),
        ),
        vector(f"{BLOCK}ln1.weight", f"{LAYER}input_layernorm.weight"),
        *_clipped(f"{BLOCK}attn_q", f"{LAYER}self_attn.q_proj", ("q", "embd")),
        *_clipped(f"{BLOCK}attn_k", f"{LAYER}self_attn.k_proj", ("q", "embd")),
        *_clipped(f"{BLOCK}attn_v", f"{LAYER}self_attn.v_proj", ("q", "embd")),
        *_clipped(f"{BLOCK}attn_out", f"{LAYER}self_attn.o_proj", ("embd", "q")),
        vector(f"{BLOCK}attn_q_norm.weight", f"{LAYER}self_attn.q_norm.weight", "head"),
        vector(f"{BLOCK}attn_k_norm.weight", f"{LAYER}self_attn.k_norm.weight", "head"),
        vector(f"{BLOCK}attn_post_norm.weight", f"{LAYER}post_attention_layernorm.weight"),
        vector(f"{BLOCK}ln2.weight", f"{LAYER}pre_feedforward_layernorm.weight"),
        *_clipped(f"{BLOCK}ffn_gate", f"{LAYER}mlp.gate_proj", ("ff", "embd")),
        *_clipped(f"{BLOCK}ffn_up", f"{LAYER}mlp.up_proj", ("ff", "embd")),
        *_clipped(f"{BLOCK}ffn_down", f"{LAYER}mlp.down_proj", ("embd", "ff")),
        vector(f"{BLOCK}ffn_post_norm.weight", f"{LAYER}post_feedforward_layernorm.weight"),
        vector("v.std_bias", "model.vision_tower.std_bias", optional=True),
        vector("v.std_scale", "model.vision_tower.std_scale", optional=True),
        matrix("mm.input_projection", "model.embed_vision.embedding_projection", ("text", "embd"))[
            0
        ],
    )

    def settings(self, vision: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
        rope = vision.get("rope_parameters") or {}
        wanted = {
            "hidden_activation": ("gelu_pytorch_tanh", vision.get("hidden_activation")),
            "pooling_kernel_size": (self.merge, vision.get("pooling_kernel_size")),
            "rope_theta": (ROPE_BASE, rope.get("rope_theta")),
            "num_key_value_heads": (
                vision.get("num_attention_heads"),
                vision.get("num_key_value_heads"),
            ),
        }
        for name, (want, found) in wanted.items():
            if found not in (None, want):
                raise ModelError(f"config.json: vision_config.{name} is {found}, not {want}")
        return {
            "image_size": 224,  # any size is seen; llama.cpp's files say this
            "activation": "gelu_tanh",
            "sizes": {
                "positions": vision.get("position_embedding_size", 10240),
                "head": vision.get("head_dim", 64),
            },
        }

    def _stored(self, gguf: Any) -> dict[str, Any]:
        return super()._stored(gguf) | {"activation": "gelu_tanh"}

    def patches(self, sight: Sight, pixels: np.ndarray) -> np.ndarray:
        return 2 * cut(pixels, sight.patch) - 1  # transformers and llama.cpp do it inside, too

    def _attend(self, ops: Any, sight: Sight, i: int, x: Any, turn: tuple[np.ndarray, str]) -> Any:
        p, spec, width = f"v.blk.{i}.attn_", replace(sight.attention, scale=1.0), sight.head_dim
        q, k, v = (_clamped(ops, x, f"{p}{name}") for name in "qkv")
        q, k = (rms_norm(ops, y, f"{p}{n}_norm", sight.eps, width) for n, y in (("q", q), ("k", k)))
        q, k = (ops.turn(y, sight.n_head, *turn) for y in (q, k))
        v = ops.norm(v, None, sight.eps, width=width)
        return _clamped(ops, ops.mutual(q, k, v, spec, None), f"{p}out")

    def _feed(self, ops: Any, i: int, x: Any) -> Any:
        p = f"v.blk.{i}.ffn_"
        y = ops.gate(_clamped(ops, x, f"{p}gate"), _clamped(ops, x, f"{p}up"), kind="gelu_tanh")
        return _clamped(ops, y, f"{p}down")

    def forward(self, ops: Any, sight: Sight, view: View) -> Any:
        table, eps = ops.weight("v.position_embd.weight").dequantized(), sight.eps
        if max(view.rows, view.columns) > table.shape[1]:
            raise UsageError(f"a view of {view.columns} x {view.rows} patches: it is too long")
        row, column = view.places
        placed = table[0][column] + table[1][row]
        x = ops.add(ops.given(placed), embedded(ops, sight, bias=False))
        row, column = np.split(axial(view, sight.head_dim // 2, ROPE_BASE), 2, axis=1)
        turn = np.concatenate([column, row], axis=1), "halves"
        for i in range(sight.n_layer):
            p = f"v.blk.{i}."
            y = self._attend(ops, sight, i, rms_norm(ops, x, f"{p}ln1", eps), turn)
            x = ops.add(x, rms_norm(ops, y, f"{p}attn_post_norm", eps))
            y = self._feed(ops, i, rms_norm(ops, x, f"{p}ln2", eps))
            x = ops.add(x, rms_norm(ops, y, f"{p}ffn_post_norm", eps))
        x = ops.regroup(x, view.tokens(sight.merge), "mean")
        x = ops.scale(x, float(sight.n_embd) ** 0.5)
        if ops.has("v.std_bias"):
            shift, n = ops.weight("v.std_bias").dequantized(), view.n // sight.merge**2
            x = ops.add(x, ops.given(np.broadcast_to(-shift, (n, sight.n_embd))))
            x = ops.gain(x, "v.std_scale")
        return ops.linear(ops.norm(x, None, eps), "mm.input_projection.weight")


TOWERS = (Gemma4(),)

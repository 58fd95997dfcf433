"""SigLIP's tower (arXiv 2303.15343): what Gemma 3, Idefics3 and LFM2-VL have before their ends."""

from __future__ import annotations

from typing import Any

from ggq.errors import ModelError
from ggq.models.layers.linear import layer_norm
from ggq.models.table import Tensor
from ggq.models.vision.sight import Sight, View
from ggq.models.vision.tower import Tower
from ggq.models.vision.vit import BLOCK, attend, embedded, feed, matrix, norm, pair

__all__ = ["Square", "encoded", "siglip_rows"]


def siglip_rows(model: str, **more: Any) -> tuple[Tensor, ...]:
    """Return the rows of a SigLIP tower whose names begin with ``model``."""
    layer = f"{model}encoder.layers.{{i}}."
    return (
        *pair(f"{model}embeddings.", **more),
        *norm(f"{BLOCK}ln1", f"{layer}layer_norm1"),
        *matrix(f"{BLOCK}attn_q", f"{layer}self_attn.q_proj", ("q", "embd")),
        *matrix(f"{BLOCK}attn_k", f"{layer}self_attn.k_proj", ("q", "embd")),
        *matrix(f"{BLOCK}attn_v", f"{layer}self_attn.v_proj", ("q", "embd")),
        *matrix(f"{BLOCK}attn_out", f"{layer}self_attn.out_proj", ("embd", "q")),
        *norm(f"{BLOCK}ln2", f"{layer}layer_norm2"),
        *matrix(f"{BLOCK}ffn_up", f"{layer}mlp.fc1", ("ff", "embd")),
        *matrix(f"{BLOCK}ffn_down", f"{layer}mlp.fc2", ("embd", "ff")),
        *norm("v.post_ln", f"{model}post_layernorm"),
    )


def encoded(ops: Any, sight: Sight, positions: Any) -> Any:
    """Return the tower's rows, (n, n_embd); ``positions``: float (n, n_embd), added at first."""
    x = ops.add(ops.given(positions), embedded(ops, sight))
    for i in range(sight.n_layer):
        x = ops.add(x, attend(ops, sight, i, layer_norm(ops, x, f"v.blk.{i}.ln1", sight.eps)))
        x = ops.add(x, feed(ops, sight, i, layer_norm(ops, x, f"v.blk.{i}.ln2", sight.eps)))
    return layer_norm(ops, x, "v.post_ln", sight.eps)


def _check_positions(sight: Sight) -> None:
    side = sight.image_size // sight.patch
    if sight.sizes.get("positions", side**2) != side**2:  # of a file without them: its tensors
        what = f"v.position_embd.weight: {sight.sizes['positions']} positions"
        raise ModelError(f"{what} of {side} x {side} patches")


class Square(Tower):
    """What towers of one square share; their positions are not interpolated."""

    checks = (_check_positions,)

    def positions(self, ops: Any, sight: Sight, view: View) -> Any:
        table = ops.weight("v.position_embd.weight").dequantized()
        side = sight.image_size // sight.patch
        if (view.rows, view.columns) != (side, side):
            size = f"{view.columns * sight.patch} x {view.rows * sight.patch}"
            what = f"{sight.projector} sees squares of {sight.image_size} pixels, not {size}"
            raise ModelError(what)
        return table

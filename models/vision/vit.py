"""What most vision towers share: rows of their tables, patches, heads and feed-forwards.

A family's file puts them together and writes its own graph. Names are those of llama.cpp's
projector files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ggq.models.layers.linear import linear, optional, rms_norm, split_linear
from ggq.models.table import Tensor
from ggq.models.vision.sight import Sight

__all__ = [
    "attend",
    "embedded",
    "feed",
    "matrix",
    "norm",
    "normed",
    "pair",
    "patch_rows",
    "perceptron",
    "vector",
    "whole",
]

BLOCK = "v.blk.{i}."
PATCH = "patch"  # the role of what llama.cpp holds in F16 or F32, never in blocks
SHAPE = ("embd", "3", "patch", "patch")


def matrix(gguf: str, hf: str, shape: tuple[str, ...], **more: Any) -> tuple[Tensor, ...]:
    """Return the row of a weight and that of the bias it may have; names without suffixes."""
    weight = Tensor(f"{gguf}.weight", (f"{hf}.weight",), shape, **{"role": "vision", **more})
    kept = {k: v for k, v in more.items() if k in ("part",)}
    bias = vector(f"{gguf}.bias", f"{hf}.bias", shape[0], optional=True, **kept)
    if more.get("transform", "").startswith(("part_", "permute_")):
        bias = replace(bias, transform=more["transform"])
    if more.get("role") == "deepstack":
        bias = replace(bias, role="deepstack")
    return weight, bias


def vector(gguf: str, hf: str, dim: str = "embd", **more: Any) -> Tensor:
    """Return the row of a vector, names whole."""
    return Tensor(gguf, (hf,), (dim,), **{"role": "kept", "f32": True, **more})


def norm(gguf: str, hf: str, dim: str = "embd", **more: Any) -> tuple[Tensor, ...]:
    """Return the rows of a norm's gain and of the bias that LayerNorms have."""
    bias = {**more, "optional": True}
    return (
        vector(f"{gguf}.weight", f"{hf}.weight", dim, **more),
        vector(f"{gguf}.bias", f"{hf}.bias", dim, **bias),
    )


def pair(hf: str, *, table: bool = True, role: str = PATCH, **more: Any) -> tuple[Tensor, ...]:
    """Return the rows of SigLIP's embeddings under ``hf``: patches and positions."""
    patches = patch_rows(f"{hf}patch_embedding", role=role, **more)
    positions = whole("v.position_embd.weight", f"{hf}position_embedding.weight")
    return (*patches, positions) if table else patches


def patch_rows(hf: str, role: str = PATCH, **more: Any) -> tuple[Tensor, ...]:
    """Return the rows of the convolution that makes patches into rows of activations."""
    f32 = role == "kept"
    return (
        Tensor("v.patch_embd.weight", (f"{hf}.weight",), SHAPE, role=role, f32=f32, **more),
        vector("v.patch_embd.bias", f"{hf}.bias", optional=True),
    )


def whole(gguf: str, hf: str, shape: tuple[str, ...] = ("positions", "embd")) -> Tensor:
    """Return the row of a table that stays float32."""
    return Tensor(gguf, (hf,), shape, role="kept", f32=True)


def embedded(ops: Any, sight: Sight, bias: bool = True) -> Any:
    """Return the patches as rows of activations, (n, n_embd)."""
    return ops.linear(
        ops.patches(),
        "v.patch_embd.weight",
        bias=optional(ops, "v.patch_embd.bias") if bias else None,
    )


def normed(ops: Any, x: Any, name: str, eps: float) -> Any:
    """Return x under a LayerNorm, or under an RMS norm where the file has no bias of it."""
    if not ops.has(f"{name}.bias"):
        return rms_norm(ops, x, name, eps)
    return ops.shift(ops.norm(x, f"{name}.weight", eps, kind="layer"), f"{name}.bias")


def attend(
    ops: Any,
    sight: Sight,
    i: int,
    x: Any,
    turn: tuple[np.ndarray, str] | None = None,
    bounds: list[int] | None = None,
) -> Any:
    """Return what layer ``i``'s heads make of the normed ``x``.

    ``turn``: angles (n, pairs) and kind of the rotation of queries and keys; ``bounds``: where each
    stretch of rows that see each other ends, None: all see all.
    """
    p, spec = f"v.blk.{i}.attn_", sight.attention
    if ops.has(f"{p}qkv.weight"):
        q, k, v = split_linear(ops, x, f"{p}qkv", (sight.dim("q"),) * 3)
    else:
        q, k, v = (linear(ops, x, f"{p}{name}") for name in "qkv")
    if turn is not None:
        q, k = (ops.turn(y, sight.n_head, *turn) for y in (q, k))
    return linear(ops, ops.mutual(q, k, v, spec, bounds), f"{p}out")


def feed(ops: Any, sight: Sight, i: int, x: Any) -> Any:
    """Return what layer ``i``'s feed-forward makes of the normed ``x``; gated where it has one."""
    p = f"v.blk.{i}.ffn_"
    if ops.has(f"{p}gate.weight"):
        y = ops.gate(linear(ops, x, f"{p}gate"), linear(ops, x, f"{p}up"), kind=sight.activation)
    else:
        y = ops.activate(linear(ops, x, f"{p}up"), sight.activation)
    return linear(ops, y, f"{p}down")


def perceptron(ops: Any, x: Any, first: str, second: str, kind: str = "gelu") -> Any:
    """Return two linears with an activation between them."""
    return linear(ops, ops.activate(linear(ops, x, first), kind), second)

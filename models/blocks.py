"""Forward blocks shared by architectures, written against ops; no back end, no values.

What differs between architectures is data: hyper-parameters, and which optional tensors (biases,
q/k norms, post norms) the file holds.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ggq.models.base import Attention, HParams, Rope

__all__ = ["attention", "decoder", "feed_forward", "head", "linear"]

ROPE_FACTORS = "rope_freqs.weight"


def linear(ops: Any, x: Any, name: str) -> Any:
    """Return x @ W.T + b for ``name``.weight and, where the file has it, ``name``.bias."""
    bias = f"{name}.bias"
    return ops.linear(x, f"{name}.weight", bias=bias if ops.has(bias) else None)


def _optional_norm(ops: Any, x: Any, name: str, eps: float, width: int | None = None) -> Any:
    return ops.norm(x, name, eps, kind="rms", width=width) if ops.has(name) else x


def _residual(ops: Any, x: Any, y: Any, hp: HParams) -> Any:
    return ops.add(x, ops.scale(y, hp.residual_scale) if hp.residual_scale else y)


def _rope(ops: Any, hp: HParams, i: int) -> Rope | None:
    rope = hp.rope_at(i)
    return (
        dataclasses.replace(rope, factors=ROPE_FACTORS) if rope and ops.has(ROPE_FACTORS) else rope
    )


def attention(ops: Any, x: Any, hp: HParams, i: int) -> Any:
    """Return layer ``i``'s causal self-attention of the normed ``x``, (n_tokens, n_embd)."""
    p = f"blk.{i}."
    n_head, n_head_kv = hp.heads(i), hp.heads_kv(i)
    q, k, v = (linear(ops, x, f"{p}attn_{n}") for n in "qkv")
    q = _optional_norm(ops, q, f"{p}attn_q_norm.weight", hp.norm_eps, hp.head_dim)
    k = _optional_norm(ops, k, f"{p}attn_k_norm.weight", hp.norm_eps, hp.head_dim)
    rope = _rope(ops, hp, i)
    if rope is not None:
        q, k = ops.rope(q, n_head, rope), ops.rope(k, n_head_kv, rope)
    spec = Attention(
        n_head,
        n_head_kv,
        hp.head_dim,
        hp.head_dim_v,
        hp.scale(),
        window=hp.window_at(i),
        softcap=hp.attn_softcap,
    )
    return linear(ops, ops.attention(q, k, v, i, spec), f"{p}attn_output")


def feed_forward(ops: Any, x: Any, hp: HParams, i: int) -> Any:
    """Return layer ``i``'s gated feed-forward of the normed ``x``: down(act(gate(x)) * up(x))."""
    p = f"blk.{i}.ffn_"
    gate, up = linear(ops, x, f"{p}gate"), linear(ops, x, f"{p}up")
    return linear(ops, ops.gate(gate, up, kind=hp.activation), f"{p}down")


def head(ops: Any, x: Any, hp: HParams) -> Any:
    """Return the logits of the gathered rows: norm, output or tied embedding, scale, cap."""
    x = ops.norm(ops.gather(x), "output_norm.weight", hp.norm_eps, kind="rms")
    x = ops.linear(x, "output.weight" if ops.has("output.weight") else "token_embd.weight")
    x = ops.scale(x, hp.logit_scale) if hp.logit_scale else x
    return ops.softcap(x, hp.final_softcap) if hp.final_softcap else x


def decoder(ops: Any, hp: HParams) -> Any:
    """Return the logits of a pre-norm decoder: embedding, residual layers, head."""
    x = ops.embed("token_embd.weight")
    if hp.embedding_scale:
        x = ops.scale(x, hp.embedding_scale)
    for i in range(hp.n_layer):
        p = f"blk.{i}."
        y = attention(ops, ops.norm(x, f"{p}attn_norm.weight", hp.norm_eps, kind="rms"), hp, i)
        x = _residual(
            ops, x, _optional_norm(ops, y, f"{p}post_attention_norm.weight", hp.norm_eps), hp
        )
        y = feed_forward(ops, ops.norm(x, f"{p}ffn_norm.weight", hp.norm_eps, kind="rms"), hp, i)
        x = _residual(ops, x, _optional_norm(ops, y, f"{p}post_ffw_norm.weight", hp.norm_eps), hp)
    return head(ops, x, hp)

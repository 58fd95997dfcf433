"""Forward blocks shared by architectures, written against ops; no back end, no values.

What differs between architectures is data: hyper-parameters, and which optional tensors (biases,
q/k norms, post norms) the file holds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ggq.models.base import Architecture, Attention, HParams, Rope, Routing

__all__ = ["Decoder", "attention", "decoder", "feed_forward", "head", "linear", "mixture"]

ROPE_FACTORS = "rope_freqs.weight"
SHORT_FACTORS, LONG_FACTORS = "rope_factors_short.weight", "rope_factors_long.weight"


def linear(ops: Any, x: Any, name: str, rows: tuple[int, int] | None = None) -> Any:
    """Return x @ W.T + b for ``name``.weight and, where the file has it, ``name``.bias."""
    bias = f"{name}.bias"
    return ops.linear(x, f"{name}.weight", bias=bias if ops.has(bias) else None, rows=rows)


def _parts(ops: Any, x: Any, name: str, widths: tuple[int, ...]) -> list[Any]:
    """Return the outputs of a weight that holds several ones, of ``widths`` rows each."""
    ends = [sum(widths[: i + 1]) for i in range(len(widths))]
    return [
        linear(ops, x, name, (end - width, end)) for width, end in zip(widths, ends, strict=True)
    ]


def _optional_norm(ops: Any, x: Any, name: str, eps: float, width: int | None = None) -> Any:
    return ops.norm(x, name, eps, kind="rms", width=width) if ops.has(name) else x


def _residual(ops: Any, x: Any, y: Any, hp: HParams) -> Any:
    return ops.add(x, ops.scale(y, hp.residual_scale) if hp.residual_scale else y)


def _rope(ops: Any, hp: HParams, i: int) -> Rope | None:
    """Return layer ``i``'s rotary embedding with the factors that the file holds for it."""
    rope = hp.rope_at(i)
    long = (hp.n_ctx or hp.n_ctx_train) > hp.rope.original_context
    for name in (ROPE_FACTORS, LONG_FACTORS if long else SHORT_FACTORS):
        if rope is not None and rope is not hp.rope_local and ops.has(name):
            return replace(rope, factors=name)
    return rope


def _projections(ops: Any, x: Any, hp: HParams, i: int) -> list[Any]:
    """Return queries, keys and values, from one fused weight or from three."""
    p = f"blk.{i}.attn_"
    if ops.has(f"{p}qkv.weight"):
        return _parts(ops, x, f"{p}qkv", tuple(hp.dim(n, i) for n in "qkv"))
    return [linear(ops, x, f"{p}{n}") for n in "qkv"]


def attention(ops: Any, x: Any, hp: HParams, i: int) -> Any:
    """Return layer ``i``'s causal self-attention of the normed ``x``, (n_tokens, n_embd)."""
    p = f"blk.{i}."
    n_head, n_head_kv = hp.heads(i), hp.heads_kv(i)
    q, k, v = _projections(ops, x, hp, i)
    q = _optional_norm(ops, q, f"{p}attn_q_norm.weight", hp.norm_eps, hp.head_dim)
    k = _optional_norm(ops, k, f"{p}attn_k_norm.weight", hp.norm_eps, hp.head_dim)
    rope = _rope(ops, hp, i)
    if rope is not None:
        warm = replace(rope, temperature=hp.attn_temperature or 0.0)
        q, k = ops.rope(q, n_head, warm), ops.rope(k, n_head_kv, rope)
    sinks = f"{p}attn_sinks.weight"
    spec = Attention(
        n_head,
        n_head_kv,
        hp.head_dim,
        hp.head_dim_v,
        hp.scale(),
        window=hp.window_at(i),
        softcap=hp.attn_softcap,
        sinks=sinks if ops.has(sinks) else None,
    )
    return linear(ops, ops.attention(q, k, v, i, spec), f"{p}attn_output")


def feed_forward(ops: Any, x: Any, hp: HParams, i: int) -> Any:
    """Return layer ``i``'s gated feed-forward of the normed ``x``: down(act(gate(x)) * up(x))."""
    p = f"blk.{i}.ffn_"
    if ops.has(f"{p}gate.weight"):
        gate, up = linear(ops, x, f"{p}gate"), linear(ops, x, f"{p}up")
    else:
        gate, up = _parts(ops, x, f"{p}up", (hp.ff(i), hp.ff(i)))
    return linear(ops, ops.gate(gate, up, kind=hp.activation), f"{p}down")


def mixture(ops: Any, x: Any, hp: HParams, i: int) -> Any:
    """Return layer ``i``'s experts of the normed ``x``, each a gated feed-forward, weighted."""
    p = f"blk.{i}.ffn_"
    bias = f"blk.{i}.exp_probs_b.bias"
    spec = Routing(
        hp.n_expert,
        hp.n_expert_used,
        hp.gating,
        hp.expert_normalize,
        hp.expert_scale,
        bias if ops.has(bias) else None,
        hp.n_expert_group,
        hp.n_expert_group_used,
    )
    routed = ops.route(linear(ops, x, f"{p}gate_inp"), spec)

    def experts(x: Any, name: str) -> Any:
        shift = f"{p}{name}_exps.bias"
        return ops.experts(
            x, routed, f"{p}{name}_exps.weight", bias=shift if ops.has(shift) else None
        )

    y = ops.gate(experts(x, "gate"), experts(x, "up"), kind=hp.activation)
    return ops.combine(experts(y, "down"), routed)


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
        before, after = f"{p}ffn_norm.weight", f"{p}post_attention_norm.weight"
        if not ops.has(before):  # some files call the norm before the feed-forward so
            before, after = after, f"{p}attn_post_norm.weight"
        y = attention(ops, ops.norm(x, f"{p}attn_norm.weight", hp.norm_eps, kind="rms"), hp, i)
        x = _residual(ops, x, _optional_norm(ops, y, after, hp.norm_eps), hp)
        block = mixture if hp.mixes(i) else feed_forward
        y = block(ops, ops.norm(x, before, hp.norm_eps, kind="rms"), hp, i)
        x = _residual(ops, x, _optional_norm(ops, y, f"{p}post_ffw_norm.weight", hp.norm_eps), hp)
    return head(ops, x, hp)


class Decoder(Architecture):
    """An architecture whose forward pass is `decoder`."""

    def forward(self, ops: Any, hp: HParams) -> Any:
        return decoder(ops, hp)

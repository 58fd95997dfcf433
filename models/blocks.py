"""Forward blocks shared by architectures, written against ops; no back end, no values.

What differs between architectures is data: hyper-parameters, and which optional tensors (biases,
q/k norms, post norms) the file holds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ggq.models.base import Architecture, Attention, Delta, HParams, Rope, Routing
from ggq.models.latent import latent_attention

__all__ = [
    "Decoder",
    "attention",
    "decoder",
    "delta_net",
    "feed_forward",
    "head",
    "linear",
    "mixture",
    "short_convolution",
]

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
    """Return queries, keys and values (None: another layer's), from one fused weight or three."""
    p = f"blk.{i}.attn_"
    if ops.has(f"{p}qkv.weight"):
        return _parts(ops, x, f"{p}qkv", tuple(hp.dim(n, i) for n in "qkv"))
    q = linear(ops, x, f"{p}q")
    if hp.kv_layer(i) != i:
        return [q, None, None]
    k = linear(ops, x, f"{p}k")
    return [q, k, linear(ops, x, f"{p}v") if ops.has(f"{p}v.weight") else k]


def _turned(ops: Any, x: Any, hp: HParams, i: int, name: str) -> Any:
    """Return queries ("q") or keys ("k") with their head norms and rotation, None for none."""
    if x is None:
        return None
    x = _optional_norm(ops, x, f"blk.{i}.attn_{name}_norm.weight", hp.norm_eps, hp.width(i))
    rope = _rope(ops, hp, i)
    if rope is None:
        return x
    if name == "q":
        rope = replace(rope, temperature=hp.attn_temperature or 0.0)
    return ops.rope(x, hp.heads(i) if name == "q" else hp.heads_kv(i), rope)


def attention(ops: Any, x: Any, hp: HParams, i: int) -> Any:
    """Return layer ``i``'s self-attention of the normed ``x``, (n_tokens, n_embd)."""
    p = f"blk.{i}."
    q, k, v = _projections(ops, x, hp, i)
    gate = None
    if hp.query_gate:  # each head's query is followed by the gate of its output
        gate = ops.columns(q, hp.head_dim, hp.head_dim, group=2 * hp.head_dim)
        q = ops.columns(q, 0, hp.head_dim, group=2 * hp.head_dim)
    if hp.value_norm and v is not None:
        v = ops.norm(v, None, hp.norm_eps, kind="rms", width=hp.width_v(i))
    q, k = _turned(ops, q, hp, i, "q"), _turned(ops, k, hp, i, "k")
    sinks = f"{p}attn_sinks.weight"
    spec = Attention(
        hp.heads(i),
        hp.heads_kv(i),
        hp.width(i),
        hp.width_v(i),
        hp.scale(),
        window=hp.window_at(i),
        softcap=hp.attn_softcap,
        sinks=sinks if ops.has(sinks) else None,
        causal=hp.causal,
    )
    y = ops.attention(q, k, v, hp.kv_layer(i), spec)
    y = y if gate is None else ops.gate(gate, y, kind="sigmoid")
    return linear(ops, y, f"{p}attn_output")


def short_convolution(ops: Any, x: Any, hp: HParams, i: int) -> Any:
    """Return LFM2's gated convolution of the normed ``x``: out(c * conv(b * x))."""
    p, n = f"blk.{i}.shortconv.", hp.n_embd
    b, c, x = _parts(ops, x, f"{p}in_proj", (n, n, n))
    y = ops.conv(ops.gate(b, x, kind="none"), f"{p}conv.weight", i)
    return linear(ops, ops.gate(c, y, kind="none"), f"{p}out_proj")


def delta_net(ops: Any, x: Any, hp: HParams, i: int) -> Any:
    """Return the gated DeltaNet (arXiv 2412.06464) of the normed ``x``."""
    p = f"blk.{i}."
    spec = replace(hp.delta or Delta(0, 0, 0, 0), a=f"{p}ssm_a", dt=f"{p}ssm_dt.bias")
    mixed = ops.conv(linear(ops, x, f"{p}attn_qkv"), f"{p}ssm_conv1d.weight", i, kind="silu")
    alpha, beta = linear(ops, x, f"{p}ssm_alpha"), linear(ops, x, f"{p}ssm_beta")
    y = ops.delta(mixed, alpha, beta, i, spec)
    y = ops.norm(y, f"{p}ssm_norm.weight", hp.norm_eps, kind="rms", width=spec.head_dim_v)
    return linear(ops, ops.gate(linear(ops, x, f"{p}attn_gate"), y, kind="silu"), f"{p}ssm_out")


def feed_forward(ops: Any, x: Any, hp: HParams, i: int) -> Any:
    """Return layer ``i``'s gated feed-forward of the normed ``x``: down(act(gate(x)) * up(x))."""
    p = f"blk.{i}.ffn_"
    if ops.has(f"{p}gate.weight"):
        gate, up = linear(ops, x, f"{p}gate"), linear(ops, x, f"{p}up")
    else:
        gate, up = _parts(ops, x, f"{p}up", (hp.ff(i), hp.ff(i)))
    return linear(ops, ops.gate(gate, up, kind=hp.activation), f"{p}down")


def mixture(ops: Any, x: Any, hp: HParams, i: int, routed_by: Any = None) -> Any:
    """Return layer ``i``'s experts of the normed ``x``, each a gated feed-forward, weighted.

    The router sees ``routed_by`` where that is not ``x``.
    """
    p = f"blk.{i}.ffn_"
    bias, scales = f"blk.{i}.exp_probs_b.bias", f"{p}down_exps.scale"
    spec = Routing(
        hp.n_expert,
        hp.n_expert_used,
        hp.gating,
        hp.expert_normalize,
        hp.expert_scale,
        bias if ops.has(bias) else None,
        hp.n_expert_group,
        hp.n_expert_group_used,
        scales if ops.has(scales) else None,
    )
    routed = ops.route(linear(ops, x if routed_by is None else routed_by, f"{p}gate_inp"), spec)

    def experts(x: Any, name: str, **part: Any) -> Any:
        shift = f"{p}{name}_exps.bias"
        return ops.experts(
            x, routed, f"{p}{name}_exps.weight", bias=shift if ops.has(shift) else None, **part
        )

    if ops.has(f"{p}gate_up_exps.weight"):
        n = hp.dim("ff_expert", i)
        gate, up = (experts(x, "gate_up", rows=part) for part in ((0, n), (n, 2 * n)))
    else:
        gate, up = experts(x, "gate"), experts(x, "up")
    y = ops.gate(gate, up, kind=hp.activation)
    y = ops.combine(experts(y, "down"), routed)
    if not hp.n_ff_shared:
        return y
    gate, up = linear(ops, x, f"{p}gate_shexp"), linear(ops, x, f"{p}up_shexp")
    shared = linear(ops, ops.gate(gate, up, kind=hp.activation), f"{p}down_shexp")
    if ops.has(f"{p}gate_inp_shexp.weight"):
        shared = ops.gate(linear(ops, x, f"{p}gate_inp_shexp"), shared, kind="sigmoid")
    return ops.add(y, shared)


def _fed(ops: Any, x: Any, hp: HParams, i: int, norm: str) -> Any:
    """Return what layer ``i``'s feed-forward, experts or both side by side make of ``x``."""
    p = f"blk.{i}."
    normed = ops.norm(x, norm, hp.norm_eps, kind="rms")
    beside = f"{p}pre_ffw_norm_2.weight"
    if not hp.mixes(i) or not ops.has(beside):
        return (mixture if hp.mixes(i) else feed_forward)(ops, normed, hp, i)
    dense = feed_forward(ops, normed, hp, i)
    dense = ops.norm(dense, f"{p}post_ffw_norm_1.weight", hp.norm_eps, kind="rms")
    seen = ops.norm(x, f"{p}ffn_gate_inp.scale", hp.norm_eps, kind="rms")
    seen = ops.scale(seen, float(hp.n_embd) ** -0.5)
    mixed = mixture(ops, ops.norm(x, beside, hp.norm_eps, kind="rms"), hp, i, seen)
    mixed = ops.norm(mixed, f"{p}post_ffw_norm_2.weight", hp.norm_eps, kind="rms")
    return ops.add(dense, mixed)


def _layer_inputs(ops: Any, x: Any, hp: HParams) -> Any:
    """Return all layers' own embeddings of the tokens, (n_tokens, n_layer * n_embd_layer)."""
    n = hp.n_embd_layer
    own = ops.scale(ops.embed("per_layer_token_embd.weight"), float(n) ** 0.5)
    made = ops.scale(linear(ops, x, "per_layer_model_proj"), float(hp.n_embd) ** -0.5)
    made = ops.norm(made, "per_layer_proj_norm.weight", hp.norm_eps, kind="rms", width=n)
    return ops.scale(ops.add(own, made), 0.5**0.5)


def _with_layer_input(ops: Any, x: Any, inputs: Any, hp: HParams, i: int) -> Any:
    """Return ``x`` plus what layer ``i``'s own embedding, gated by ``x``, gives."""
    p, n = f"blk.{i}.", hp.n_embd_layer
    own = ops.columns(inputs, i * n, n)
    y = ops.gate(linear(ops, x, f"{p}inp_gate"), own, kind=hp.activation)
    y = ops.norm(linear(ops, y, f"{p}proj"), f"{p}post_norm.weight", hp.norm_eps, kind="rms")
    return ops.add(x, y)


def head(ops: Any, x: Any, hp: HParams) -> Any:
    """Return the logits of the gathered rows: norm, output or tied embedding, scale, cap."""
    name = "output_norm.weight" if ops.has("output_norm.weight") else "token_embd_norm.weight"
    x = ops.norm(ops.gather(x), name, hp.norm_eps, kind="rms")
    x = ops.linear(x, "output.weight" if ops.has("output.weight") else "token_embd.weight")
    x = ops.scale(x, hp.logit_scale) if hp.logit_scale else x
    return ops.softcap(x, hp.final_softcap) if hp.final_softcap else x


def decoder(ops: Any, hp: HParams) -> Any:
    """Return the logits of a pre-norm decoder: embedding, residual layers, head."""
    x = ops.embed("token_embd.weight")
    if hp.embedding_scale:
        x = ops.scale(x, hp.embedding_scale)
    inputs = _layer_inputs(ops, x, hp) if hp.n_embd_layer else None
    for i in range(hp.n_layer):
        p = f"blk.{i}."
        before, after = f"{p}ffn_norm.weight", f"{p}post_attention_norm.weight"
        if not ops.has(before):  # some files call the norm before the feed-forward so
            before, after = after, f"{p}attn_post_norm.weight"
        mix = latent_attention if hp.latent else attention
        if hp.recurrent(i):
            mix = delta_net if hp.delta else short_convolution
        y = mix(ops, ops.norm(x, f"{p}attn_norm.weight", hp.norm_eps, kind="rms"), hp, i)
        x = _residual(ops, x, _optional_norm(ops, y, after, hp.norm_eps), hp)
        y = _fed(ops, x, hp, i, before)
        x = _residual(ops, x, _optional_norm(ops, y, f"{p}post_ffw_norm.weight", hp.norm_eps), hp)
        if inputs is not None:
            x = _with_layer_input(ops, x, inputs, hp, i)
        if ops.has(f"{p}layer_output_scale.weight"):
            x = ops.scale(x, ops.number(f"{p}layer_output_scale.weight"))
    return head(ops, x, hp)


class Decoder(Architecture):
    """An architecture whose forward pass is `decoder`."""

    def forward(self, ops: Any, hp: HParams) -> Any:
        return decoder(ops, hp)

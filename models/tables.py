"""The tensor rows that most decoder architectures share; architectures add or alter copies."""

from __future__ import annotations

from dataclasses import replace

from ggq.models.base import Tensor

__all__ = [
    "DECODER_TENSORS",
    "EXPERT_TENSORS",
    "FUSED_TENSORS",
    "LONGROPE_FACTORS",
    "MIXTRAL_TENSORS",
    "POST_NORMS",
    "QK_NORMS",
    "ROPE_FREQS",
    "SHARED_EXPERT",
    "changed",
    "expert_rows",
    "permuted",
    "plus_one",
    "with_experts",
]

LAYER = "model.layers.{i}."
BLOCK = "blk.{i}."


def _norm(gguf: str, hf: str, dim: str = "embd", **more: object) -> Tensor:
    return Tensor(gguf, (hf,), (dim,), role="norm", f32=True, **more)


def _matrix(
    gguf: str, hf: str, shape: tuple[str, str], role: str, **more: object
) -> tuple[Tensor, Tensor]:
    """Return the rows of a weight and of its optional bias."""
    weight = Tensor(f"{BLOCK}{gguf}.weight", (f"{LAYER}{hf}.weight",), shape, role=role, **more)
    bias = Tensor(
        f"{BLOCK}{gguf}.bias",
        (f"{LAYER}{hf}.bias",),
        shape[:1],
        role="bias",
        optional=True,
        f32=True,
    )
    return weight, bias


DECODER_TENSORS = (
    Tensor(
        "token_embd.weight", ("model.embed_tokens.weight",), ("vocab", "embd"), role="token_embd"
    ),
    _norm("output_norm.weight", "model.norm.weight"),
    Tensor(
        "output.weight",
        ("lm_head.weight",),
        ("vocab", "embd"),
        role="output",
        input="head_in",
        absorbs="output_norm.weight",
        optional=True,
    ),
    _norm(f"{BLOCK}attn_norm.weight", f"{LAYER}input_layernorm.weight"),
    *_matrix(
        "attn_q",
        "self_attn.q_proj",
        ("q", "embd"),
        "attn_q",
        input="attn_in",
        absorbs=f"{BLOCK}attn_norm.weight",
    ),
    *_matrix(
        "attn_k",
        "self_attn.k_proj",
        ("k", "embd"),
        "attn_k",
        input="attn_in",
        absorbs=f"{BLOCK}attn_norm.weight",
    ),
    *_matrix(
        "attn_v",
        "self_attn.v_proj",
        ("v", "embd"),
        "attn_v",
        input="attn_in",
        absorbs=f"{BLOCK}attn_norm.weight",
    ),
    *_matrix(
        "attn_output",
        "self_attn.o_proj",
        ("embd", "o"),
        "attn_output",
        input="attn_out",
        absorbs=f"{BLOCK}attn_v.weight",
    ),
    _norm(f"{BLOCK}ffn_norm.weight", f"{LAYER}post_attention_layernorm.weight"),
    *_matrix(
        "ffn_gate",
        "mlp.gate_proj",
        ("ff", "embd"),
        "ffn_gate",
        input="ffn_in",
        absorbs=f"{BLOCK}ffn_norm.weight",
    ),
    *_matrix(
        "ffn_up",
        "mlp.up_proj",
        ("ff", "embd"),
        "ffn_up",
        input="ffn_in",
        absorbs=f"{BLOCK}ffn_norm.weight",
    ),
    *_matrix(
        "ffn_down",
        "mlp.down_proj",
        ("embd", "ff"),
        "ffn_down",
        input="ffn_act",
        absorbs=f"{BLOCK}ffn_up.weight",
    ),
)

QK_NORMS = (
    _norm(f"{BLOCK}attn_q_norm.weight", f"{LAYER}self_attn.q_norm.weight", "head"),
    _norm(f"{BLOCK}attn_k_norm.weight", f"{LAYER}self_attn.k_norm.weight", "head"),
)

# Phi-3's projections of one input in one weight each.
FUSED_TENSORS = (
    *_matrix(
        "attn_qkv",
        "self_attn.qkv_proj",
        ("q+k+v", "embd"),
        "attn_qkv",
        input="attn_in",
        absorbs=f"{BLOCK}attn_norm.weight",
    ),
    *_matrix(
        "ffn_up",
        "mlp.gate_up_proj",
        ("2*ff", "embd"),
        "ffn_up",
        input="ffn_in",
        absorbs=f"{BLOCK}ffn_norm.weight",
    ),
)

# A layer of four norms: HF's post_attention_layernorm then follows attention directly.
POST_NORMS = (
    _norm(f"{BLOCK}post_attention_norm.weight", f"{LAYER}post_attention_layernorm.weight"),
    _norm(f"{BLOCK}ffn_norm.weight", f"{LAYER}pre_feedforward_layernorm.weight"),
    _norm(f"{BLOCK}post_ffw_norm.weight", f"{LAYER}post_feedforward_layernorm.weight"),
)

ROPE_FREQS = Tensor(
    "rope_freqs.weight",
    (),
    ("rope_half",),
    transform="llama3_factors",
    role="rope",
    optional=True,
    f32=True,
)


def permuted(rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return ``rows`` with q and k reordered from HF's half-split rope to adjacent pairs."""
    names = {"attn_q": "permute_q", "attn_k": "permute_k"}
    kinds = {f"{BLOCK}{n}.{s}": t for n, t in names.items() for s in ("weight", "bias")}
    return tuple(replace(row, transform=kinds.get(row.gguf, row.transform)) for row in rows)


DENSE = ("ffn_gate", "ffn_up", "ffn_down")


def expert_rows(gate: str, up: str, down: str, router: str) -> tuple[Tensor, ...]:
    """Return the rows of a layer's experts, whose HF names are given without the layer."""
    norm = f"{BLOCK}ffn_norm.weight"
    router_row, _ = _matrix(
        "ffn_gate_inp", router, ("expert", "embd"), "router", input="ffn_in", absorbs=norm
    )
    rows = (
        ("ffn_gate", gate, ("ff_expert", "embd"), "ffn_in", norm),
        ("ffn_up", up, ("ff_expert", "embd"), "ffn_in", norm),
        ("ffn_down", down, ("embd", "ff_expert"), "experts_act", f"{BLOCK}ffn_up_exps.weight"),
    )
    stacks = tuple(
        Tensor(
            f"{BLOCK}{name}_exps.weight",
            (f"{LAYER}{hf}.weight",),
            ("expert", *shape),
            role=name,
            input=label,
            absorbs=absorbs,
        )
        for name, hf, shape, label, absorbs in rows
    )
    return tuple(replace(r, only="experts") for r in (router_row, *stacks))


def with_experts(*experts: Tensor) -> tuple[Tensor, ...]:
    """Return decoder rows whose layers are dense or, with ``experts``, mixed."""
    dense = {f"{BLOCK}{n}.{s}" for n in DENSE for s in ("weight", "bias")}
    rows = (replace(r, only="dense") if r.gguf in dense else r for r in DECODER_TENSORS)
    return (*rows, *experts)


MOE = "block_sparse_moe."
MIXTRAL_TENSORS = with_experts(
    *expert_rows(
        f"{MOE}experts.{{e}}.w1", f"{MOE}experts.{{e}}.w3", f"{MOE}experts.{{e}}.w2", f"{MOE}gate"
    )
)
EXPERTS = "mlp.experts.{e}."
STACKS = {  # what newer checkpoints have in the place of a matrix per expert
    f"{BLOCK}ffn_gate_exps.weight": (f"{LAYER}mlp.experts.gate_up_proj", "first_half"),
    f"{BLOCK}ffn_up_exps.weight": (f"{LAYER}mlp.experts.gate_up_proj", "second_half"),
    f"{BLOCK}ffn_down_exps.weight": (f"{LAYER}mlp.experts.down_proj", "stack"),
}
EXPERT_TENSORS = with_experts(
    *(
        replace(row, fused=STACKS.get(row.gguf))
        for row in expert_rows(
            f"{EXPERTS}gate_proj", f"{EXPERTS}up_proj", f"{EXPERTS}down_proj", "mlp.gate"
        )
    )
)
SHARED_EXPERT = tuple(
    row
    for name, hf, shape, label, absorbs in (
        ("gate_inp", "shared_expert_gate", ("1", "embd"), "ffn_in", "ffn_norm"),
        ("gate", "shared_expert.gate_proj", ("ff_shared", "embd"), "ffn_in", "ffn_norm"),
        ("up", "shared_expert.up_proj", ("ff_shared", "embd"), "ffn_in", "ffn_norm"),
        ("down", "shared_expert.down_proj", ("embd", "ff_shared"), "shared_act", "ffn_up_shexp"),
    )
    for row in _matrix(
        f"ffn_{name}_shexp",
        f"mlp.{hf}",
        shape,
        f"ffn_{name}",
        input=label,
        absorbs=f"{BLOCK}{absorbs}.weight",
    )[:1]
)
LONGROPE_FACTORS = tuple(
    replace(ROPE_FREQS, gguf=f"rope_factors_{n}.weight", transform=f"longrope_{n}")
    for n in ("long", "short")
)


def changed(
    rows: tuple[Tensor, ...], *new: Tensor, without: tuple[str, ...] = ()
) -> tuple[Tensor, ...]:
    """Return ``rows`` with ``new`` ones in the place of their namesakes or at the end.

    ``without``: leave out the rows of these names, given with their suffix and without "blk.{i}.".
    """
    by_name = {row.gguf: row for row in (*rows, *new)}
    return tuple(r for n, r in by_name.items() if n.removeprefix(BLOCK) not in without)


def plus_one(rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return ``rows`` with the norms that HF stores around 0 moved to lie around 1."""
    return tuple(replace(r, transform="plus_one") if r.role == "norm" else r for r in rows)

"""Multi-head latent attention (arXiv 2405.04434), absorbed: one cached head for all; or expanded.

A key is the layer's latent columns followed by columns that rotate with the position; a value is
the latent columns alone. Queries are brought into the latent space by ``attn_k_b``, results out of
it by ``attn_v_b``, so that keys and values of single heads are never made. Files of other names
hold both in one weight, ``attn_kv_b``: there each head's keys and values are made and cached.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Memory, Part
from ggq.models.layers.rope import Rope, rotate
from ggq.models.table import Key, norm, rows

__all__ = ["EXPANDED_KEYS", "EXPANDED_TENSORS", "KEYS", "TENSORS", "LatentAttention"]


@dataclass(frozen=True)
class LatentAttention(Part):
    """Keys and values are made of ``kv_rank`` columns, queries of ``q_rank`` (0: of the embedding).

    A head's query and key have ``nope_dim`` columns without positions and ``rope_dim`` ones with
    them, which all heads' keys share; its value has ``v_dim`` columns. Where it is ``expanded``
    every head's own keys and values are cached.
    """

    n_head: int
    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int
    scale: float
    rope: Rope
    norm_eps: float
    expanded: bool = False

    @property
    def dims(self) -> dict[str, int]:
        q = self.n_head * (self.nope_dim + self.rope_dim)
        return {
            "heads": self.n_head,
            "latent_q": q,
            "latent_q_direct": 0 if self.q_rank else q,
            "latent_q_rank": self.q_rank,
            "latent_rank": self.kv_rank,
            "latent_kv": self.kv_rank + self.rope_dim,
            "latent_nope": self.nope_dim,
            "latent_value": self.v_dim,
            "latent_o": self.n_head * self.v_dim,
            "latent_both": self.n_head * (self.nope_dim + self.v_dim),
            "rope_half": self.rope.dims // 2,
        }

    @property
    def memory(self) -> Memory:
        if self.expanded:
            return Memory(self.n_head, self.nope_dim + self.rope_dim, self.v_dim)
        return Memory(1, self.kv_rank + self.rope_dim, self.kv_rank)

    def problem(self) -> str | None:
        sizes = (self.kv_rank, self.nope_dim, self.rope_dim, self.v_dim)
        if min(sizes) < 1:
            return f"heads of latent attention made of parts of {sizes} columns"
        if self.n_head < 1:
            return f"{self.n_head} heads over 1 key-value heads"
        return self.rope.problem(self.kv_rank + self.rope_dim)

    def for_context(self, n_ctx: int) -> LatentAttention:
        return replace(self, rope=self.rope.for_context(n_ctx))

    def forward(self, ops: Any, x: Any) -> Any:
        p, width = f"blk.{self.layer}.attn_", self.nope_dim + self.rope_dim
        q = self._queries(ops, x, p)
        nope = ops.columns(q, 0, self.nope_dim, group=width)
        placed = ops.columns(q, self.nope_dim, self.rope_dim, group=width)
        placed = rotate(ops, placed, self.n_head, self.rope)
        made, rank = f"{p}kv_a_mqa.weight", self.kv_rank
        latent = ops.linear(x, made, rows=(0, rank))
        latent = ops.norm(latent, f"{p}kv_a_norm.weight", self.norm_eps, kind="rms")
        rotated = ops.linear(x, made, rows=(rank, rank + self.rope_dim))
        rotated = rotate(ops, rotated, 1, self.rope)
        if self.expanded:
            q = ops.join(nope, placed, self.n_head)
            y = self._by_heads(ops, q, latent, rotated)
        else:
            q = ops.join(ops.heads(nope, f"{p}k_b.weight"), placed, self.n_head)
            k = ops.join(latent, rotated, 1)
            spec = Attention(self.n_head, 1, rank + self.rope_dim, rank, self.scale)
            y = ops.heads(ops.attention(q, k, latent, self.layer, spec), f"{p}v_b.weight")
        return ops.linear(y, f"{p}output.weight")

    def _by_heads(self, ops: Any, q: Any, latent: Any, rotated: Any) -> Any:
        """Return what queries find among keys and values made for each head."""
        both = ops.linear(latent, f"blk.{self.layer}.attn_kv_b.weight")
        group = self.nope_dim + self.v_dim
        k = ops.columns(both, 0, self.nope_dim, group=group)
        k = ops.join(k, rotated, self.n_head, shared=True)
        v = ops.columns(both, self.nope_dim, self.v_dim, group=group)
        width = self.nope_dim + self.rope_dim
        spec = Attention(self.n_head, self.n_head, width, self.v_dim, self.scale)
        return ops.attention(q, k, v, self.layer, spec)

    def _queries(self, ops: Any, x: Any, p: str) -> Any:
        if not self.q_rank:
            return ops.linear(x, f"{p}q.weight")
        x = ops.linear(x, f"{p}q_a.weight")
        x = ops.norm(x, f"{p}q_a_norm.weight", self.norm_eps, kind="rms")
        return ops.linear(x, f"{p}q_b.weight")


KEYS = (
    Key("{arch}.attention.q_lora_rank", ("q_lora_rank",), "latent_q_rank", default=0),
    Key("{arch}.attention.kv_lora_rank", ("kv_lora_rank",), "latent_rank", required=True),
    Key(
        "{arch}.attention.key_length",
        (),
        "head_dim",
        required=True,
        derive=lambda c: c["kv_lora_rank"] + c["qk_rope_head_dim"],
    ),
    Key("{arch}.attention.value_length", ("kv_lora_rank",), "head_dim_v", required=True),
    Key(
        "{arch}.attention.key_length_mla",
        (),
        "latent_key",
        required=True,
        derive=lambda c: c["qk_nope_head_dim"] + c["qk_rope_head_dim"],
    ),
    Key("{arch}.attention.value_length_mla", ("v_head_dim",), "latent_value", required=True),
    Key("{arch}.rope.dimension_count", ("qk_rope_head_dim",), "rope_dim", required=True),
)
EXPANDED_KEYS = (
    KEYS[1],
    Key(
        "{arch}.attention.key_length",
        (),
        "head_dim",
        required=True,
        derive=lambda c: c["qk_nope_head_dim"] + c["qk_rope_head_dim"],
    ),
    Key("{arch}.attention.value_length", ("v_head_dim",), "head_dim_v"),
    KEYS[-1],
)
PLAIN: dict[str, Any] = {"part": LatentAttention, "bias": False}
AHEAD: dict[str, Any] = {**PLAIN, "input": "attn_in", "absorbs": "attn_norm"}
BOTH = "self_attn.kv_b_proj"
TENSORS = (
    *rows("attn_q", "self_attn.q_proj", ("latent_q_direct", "embd"), **AHEAD),
    *rows("attn_q_a", "self_attn.q_a_proj", ("latent_q_rank", "embd"), role="other", **AHEAD),
    *norm("attn_q_a_norm", "self_attn.q_a_layernorm", "latent_q_rank", part=LatentAttention),
    *rows(
        "attn_q_b",
        "self_attn.q_b_proj",
        ("latent_q", "latent_q_rank"),
        role="other",
        input="q_in",
        absorbs="attn_q_a_norm",
        **PLAIN,
    ),
    *rows(
        "attn_kv_a_mqa",
        "self_attn.kv_a_proj_with_mqa",
        ("latent_kv", "embd"),
        role="other",
        **AHEAD,
    ),
    *norm("attn_kv_a_norm", "self_attn.kv_a_layernorm", "latent_rank", part=LatentAttention),
    *rows(
        "attn_k_b",
        BOTH,
        ("heads", "latent_rank", "latent_nope"),
        role="other",
        transform="latent_keys",
        **PLAIN,
    ),
    *rows(
        "attn_v_b",
        BOTH,
        ("heads", "latent_value", "latent_rank"),
        role="other",
        transform="latent_values",
        **PLAIN,
    ),
    *rows("attn_output", "self_attn.o_proj", ("embd", "latent_o"), input="attn_out", **PLAIN),
)
EXPANDED_TENSORS = (
    *(row for row in TENSORS if not row.gguf.endswith(("_k_b.weight", "_v_b.weight"))),
    *rows(
        "attn_kv_b",
        BOTH,
        ("latent_both", "latent_rank"),
        input="kv_in",
        absorbs="attn_kv_a_norm",
        **PLAIN,
    ),
)

"""Multi-head latent attention (arXiv 2405.04434) in its absorbed form: one cached head for all.

A key is the layer's latent columns followed by columns that turn with the position; a value is the
latent columns alone. Queries are brought into the latent space by ``attn_k_b``, results out of it
by ``attn_v_b``, so that keys and values of single heads are never made.
"""

from typing import Any

from ggq.models.base import Attention, HParams

__all__ = ["latent_attention"]


def latent_attention(ops: Any, x: Any, hp: HParams, i: int) -> Any:
    """Return layer ``i``'s causal self-attention of the normed ``x``, (n_tokens, n_embd)."""
    p, d, rope = f"blk.{i}.attn_", hp.latent, hp.rope_at(i)
    assert d is not None and rope is not None
    n_head, width = hp.heads(i), d.plain + d.turned
    q = _queries(ops, x, hp, p)
    plain = ops.columns(q, 0, d.plain, group=width)
    turned = ops.rope(ops.columns(q, d.plain, d.turned, group=width), n_head, rope)
    q = ops.join(ops.heads(plain, f"{p}k_b.weight"), turned, n_head)
    made = f"{p}kv_a_mqa.weight"
    latent = ops.linear(x, made, rows=(0, d.rank))
    latent = ops.norm(latent, f"{p}kv_a_norm.weight", hp.norm_eps, kind="rms")
    turned = ops.rope(ops.linear(x, made, rows=(d.rank, d.rank + d.turned)), 1, rope)
    k = ops.join(latent, turned, 1)
    spec = Attention(n_head, 1, d.rank + d.turned, d.rank, hp.scale())
    y = ops.heads(ops.attention(q, k, latent, i, spec), f"{p}v_b.weight")
    return ops.linear(y, f"{p}output.weight")


def _queries(ops: Any, x: Any, hp: HParams, p: str) -> Any:
    if not hp.latent.q_rank:
        return ops.linear(x, f"{p}q.weight")
    x = ops.norm(ops.linear(x, f"{p}q_a.weight"), f"{p}q_a_norm.weight", hp.norm_eps, kind="rms")
    return ops.linear(x, f"{p}q_b.weight")

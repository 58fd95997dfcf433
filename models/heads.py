"""The graph of heads that predict further tokens: what a draft is made with (arXiv 2412.19437)."""

from __future__ import annotations

from typing import Any

from ggq.models.decoder import unembed
from ggq.models.hparams import HParams
from ggq.models.layers.base import Layer
from ggq.models.layers.linear import linear, rms_norm
from ggq.models.llama import block

__all__ = ["BESIDE", "STATES", "last_norm", "predict"]

STATES = "token_embd.weight"  # in the place of its rows a step gives hidden states (ops.see) ...
BESIDE = "beside.token_embd.weight"  # ... so that tokens' embeddings go by another name


def predict(ops: Any, hp: HParams, ff_norm: str) -> Any:
    """Return the logits of the last layer of ``hp``, a head.

    Token i of a step is the text's token i + 1; the row that the step gives in the place of its
    embedding is the hidden state of the text's token i. The logits are those of its token i + 2.
    """
    head = hp.layers[-1]
    own = f"{head.prefix}nextn.embed_tokens.weight"
    embedded = ops.embed(own if ops.has(own) else BESIDE)
    embedded = rms_norm(ops, embedded, f"{head.prefix}nextn.enorm", hp.norm_eps)
    states = rms_norm(ops, ops.embed(STATES), f"{head.prefix}nextn.hnorm", hp.norm_eps)
    x = linear(ops, ops.join(embedded, states, 1), f"{head.prefix}nextn.eh_proj")
    x = ops.gather(block(ops, x, head, hp, ff_norm))
    x = rms_norm(ops, x, last_norm(ops, head), hp.norm_eps)
    unembedding = f"{head.prefix}nextn.shared_head_head"
    if ops.has(f"{unembedding}.weight"):
        return linear(ops, x, unembedding)
    return unembed(ops, x, hp)


def last_norm(ops: Any, head: Layer) -> str:
    """Return the name of the norm ahead of a head's logits: its own, or the model's."""
    own = f"{head.prefix}nextn.shared_head_norm"
    return own if ops.has(f"{own}.weight") else "output_norm"

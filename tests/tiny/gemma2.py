"""Tiny models of transformers' Gemma2."""

from tiny.base import Tiny

MODELS = [
    Tiny(
        "gemma2",
        "gemma2",
        "Gemma2",
        {
            "head_dim": 32,
            "num_hidden_layers": 3,
            "sliding_window": 24,
            "query_pre_attn_scalar": 32,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
            "tie_word_embeddings": True,
        },
    ),
]

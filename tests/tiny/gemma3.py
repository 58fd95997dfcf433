"""Tiny models of transformers' Gemma3."""

from tiny.base import Tiny

MODELS = [
    Tiny(
        "gemma3",
        "gemma3",
        "Gemma3",
        {
            "head_dim": 32,
            "num_hidden_layers": 7,
            "sliding_window": 24,
            "query_pre_attn_scalar": 32,
            "tie_word_embeddings": True,
        },
        cls_config="Gemma3TextConfig",
    ),
]

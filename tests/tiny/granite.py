"""Tiny models of transformers' Granite."""

from tiny.base import Tiny

MODELS = [
    Tiny(
        "granite",
        "granite",
        "Granite",
        {
            "attention_multiplier": 0.3,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "logits_scaling": 4.0,
        },
    ),
]

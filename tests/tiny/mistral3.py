"""Tiny models of transformers' Ministral3."""

from tiny.base import YARN, Tiny

MODELS = [
    Tiny(
        "mistral3",
        "mistral3",
        "Ministral3",
        {
            "head_dim": 32,
            "rope_parameters": YARN
            | {"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.3},
        },
    ),
]

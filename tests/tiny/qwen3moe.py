"""Tiny models of transformers' Qwen3Moe."""

from tiny.base import Tiny

MODELS = [
    Tiny(
        "qwen3moe",
        "qwen3moe",
        "Qwen3Moe",
        {
            "head_dim": 32,
            "num_experts": 7,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 64,
            "norm_topk_prob": True,
        },
    ),
]

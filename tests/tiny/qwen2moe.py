"""Tiny models of transformers' Qwen2Moe."""

from tiny.base import Tiny

QWEN2MOE = {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 32,
}
MODELS = [
    Tiny("qwen2moe", "qwen2moe", "Qwen2Moe", QWEN2MOE),
]

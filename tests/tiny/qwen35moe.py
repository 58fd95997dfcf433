"""Tiny models of transformers' Qwen3_5Moe."""

from tiny.base import Tiny
from tiny.qwen35 import QWEN35

QWEN35MOE = QWEN35 | {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 32,
}
MODELS = [
    Tiny("qwen35moe", "qwen35moe", "Qwen3_5Moe", QWEN35MOE, cls_config="Qwen3_5MoeTextConfig"),
]

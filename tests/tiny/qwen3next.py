"""Tiny models of transformers' Qwen3Next."""

from tiny.base import Tiny

QWEN3NEXT = {
    "head_dim": 32,
    "num_hidden_layers": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 32,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
}
MODELS = [
    Tiny("qwen3next", "qwen3next", "Qwen3Next", QWEN3NEXT),
]

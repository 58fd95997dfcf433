"""Tiny models of transformers' Dots1."""

from tiny.base import Tiny

DOTS1 = {
    "head_dim": 32,
    "num_key_value_heads": 4,  # llama.cpp knows no fewer
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "n_shared_experts": 2,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
}
MODELS = [
    Tiny("dots1", "dots1", "Dots1", DOTS1),
]

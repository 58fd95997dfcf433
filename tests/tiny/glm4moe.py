"""Tiny models of transformers' Glm4Moe."""

from tiny.base import Tiny

GLM4MOE = {
    "head_dim": 32,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "n_shared_experts": 2,
    "moe_intermediate_size": 32,
    "routed_scaling_factor": 2.5,
    "attention_bias": True,
}
MODELS = [
    Tiny("glm4moe", "glm4moe", "Glm4Moe", GLM4MOE),
    Tiny("glm4moe norms", "glm4moe", "Glm4Moe", GLM4MOE | {"use_qk_norm": True}),
]

"""Tiny models of transformers' DeepseekV2, DeepseekV3 and Glm4MoeLite."""

from tiny.base import YARN, Tiny

LATENT = {
    "num_key_value_heads": 4,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 32,
    "q_lora_rank": 48,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "moe_intermediate_size": 64,
}
DEEPSEEK3 = LATENT | {
    "n_group": 4,
    "topk_group": 2,
    "rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
}
DEEPSEEK2 = LATENT | {
    "num_experts_per_tok": 2,  # of three, one token's third and fourth are nearly tied
    "topk_method": "greedy",
    "rope_parameters": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
}
GLM4_LITE = LATENT | {
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "n_group": 1,
    "topk_group": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
MODELS = [
    Tiny("deepseek2", "deepseek2", "DeepseekV2", DEEPSEEK2),
    # llama.cpp knows this kind by its number of layers
    Tiny("deepseek2 lite", "deepseek2", "DeepseekV2", DEEPSEEK2 | {"q_lora_rank": None}, peer=None),
    Tiny("deepseek3", "deepseek2", "DeepseekV3", DEEPSEEK3),
    Tiny("glm4 lite", "deepseek2", "Glm4MoeLite", GLM4_LITE),
]

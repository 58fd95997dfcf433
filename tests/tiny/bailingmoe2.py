"""A tiny Ling 2.0: transformers' Glm4Moe has the same graph."""

import numpy as np

from ggq.models.bailingmoe2 import OWN_NAMES
from tiny.bailingmoe import PARTS
from tiny.base import Tiny, fused, renamed

SIZES = {
    "head_dim": 16,  # llama.cpp knows no others than the embedding's share
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_shared_experts": 1,
    "moe_intermediate_size": 32,
    "routed_scaling_factor": 2.5,
    "n_group": 2,
    "topk_group": 1,
    "use_qk_norm": True,
}


def remade(tensors, config):
    made = fused(tensors, PARTS, "self_attn.qkv_proj", np.concatenate)
    made = renamed(made, OWN_NAMES | {"e_score_correction_bias": "expert_bias"})
    other = {"n_routed_experts": "num_experts", "n_shared_experts": "num_shared_experts"}
    own = {"architectures": ["BailingMoeV2ForCausalLM"], "model_type": "bailing_moe"}
    own |= {"score_function": "sigmoid", "moe_router_enable_expert_bias": True}
    return made, {other.get(k, k): v for k, v in config.items()} | own


GROUPLESS = SIZES | {"n_group": 1, "topk_group": 1}
MODELS = [
    Tiny("bailingmoe2", "bailingmoe2", "Glm4Moe", SIZES, remade=remade),
    Tiny("bailingmoe2 groupless", "bailingmoe2", "Glm4Moe", GROUPLESS, remade=remade),
]

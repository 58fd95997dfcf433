"""A tiny first DeepSeek: transformers' Qwen2Moe without biases, its shared expert's gate at 1/2."""

import re

from tiny.base import Tiny

SIZES = {
    "num_hidden_layers": 3,
    "qkv_bias": False,
    "mlp_only_layers": [0],
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
    "norm_topk_prob": False,
}


def half_open(model):
    """Shut off what gates the shared expert: a sigmoid of nothing is 1/2."""
    for name, p in model.named_parameters():
        if "shared_expert_gate" in name:
            p.zero_()


def remade(tensors, config):
    """Return the tensors of the class: the half is in the shared expert's last weight."""
    made = {}
    for name, x in tensors.items():
        if "shared_expert_gate" not in name:
            x = x / 2 if "shared_expert.down_proj" in name else x
            made[name.replace("shared_expert.", "shared_experts.")] = x
    own = {"architectures": ["DeepseekForCausalLM"], "model_type": "deepseek"}
    own |= {"n_routed_experts": 6, "n_shared_experts": 2, "first_k_dense_replace": 1}
    own |= {"moe_layer_freq": 1, "scoring_func": "softmax"}
    gone = re.compile(
        "shared_expert_|decoder_sparse|mlp_only|^num_experts$|qkv_bias|window|layer_t"
    )
    return made, {k: v for k, v in config.items() if not gone.search(k)} | own


MODELS = [
    Tiny("deepseek", "deepseek", "Qwen2Moe", SIZES, prepare=half_open, remade=remade),
]

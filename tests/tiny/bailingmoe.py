"""A tiny Ling: transformers' Qwen2Moe, as for the first DeepSeek, with its tensors in one."""

import re

import numpy as np

from ggq.models.bailingmoe import NAMES
from tiny import deepseek
from tiny.base import Tiny, fused, renamed

SIZES = deepseek.SIZES | {"mlp_only_layers": [], "norm_topk_prob": True}
PARTS = [f"self_attn.{n}_proj" for n in "qkv"]


def remade(tensors, config):
    made, config = deepseek.remade(tensors, config)
    made = renamed(fused(made, PARTS, "attention.query_key_value", np.concatenate), NAMES)
    gone = re.compile("n_routed|n_shared|first_k|moe_layer|scoring|use_qkv")
    own = {"architectures": ["BailingMoeForCausalLM"], "model_type": "bailing_moe"}
    own |= {"num_experts": 6, "num_shared_experts": 2, "norm_head": False}
    return made, {k: v for k, v in config.items() if not gone.search(k)} | own


MODELS = [
    Tiny("bailingmoe", "bailingmoe", "Qwen2Moe", SIZES, prepare=deepseek.half_open, remade=remade),
]

"""A tiny Qwen 1: transformers' Qwen2 has the same graph, its tensors other names."""

import numpy as np

from ggq.models.qwen import NAMES
from tiny.base import Tiny, fused, renamed


def remade(tensors, config):
    names = [f"self_attn.{n}_proj" for n in "qkv"]
    made = renamed(fused(tensors, names, "self_attn.qkv_proj", np.concatenate), NAMES)
    kept = ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
    own = {
        "architectures": ["QWenLMHeadModel"],
        "model_type": "qwen",
        "intermediate_size": 2 * config["intermediate_size"],
        "kv_channels": 16,
        "layer_norm_epsilon": config["rms_norm_eps"],
        "max_position_embeddings": 256,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "no_bias": True,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "seq_length": 256,
    }
    return made, own | {k: config[k] for k in kept}


MODELS = [
    Tiny("qwen", "qwen", "Qwen2", {"num_key_value_heads": 4}, remade=remade),
]

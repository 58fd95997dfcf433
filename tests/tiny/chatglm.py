"""Tiny models of transformers' Glm, and one as ChatGLMModel's own code stores it."""

import numpy as np

from ggq.models.chatglm import NAMES
from tiny.base import Tiny, fused, renamed


def remade(tensors, config):
    names = [f"self_attn.{n}_proj" for n in "qkv"]
    made = renamed(fused(tensors, names, "self_attn.qkv_proj", np.concatenate), NAMES)
    own = {
        "architectures": ["ChatGLMModel"],
        "model_type": "chatglm",
        "num_layers": config["num_hidden_layers"],
        "ffn_hidden_size": config["intermediate_size"],
        "padded_vocab_size": config["vocab_size"],
        "seq_length": config["max_position_embeddings"],
        "layernorm_epsilon": config["rms_norm_eps"],
        "kv_channels": config["head_dim"],
        "multi_query_attention": True,
        "multi_query_group_num": config["num_key_value_heads"],
        "rope_ratio": 2,
        "rmsnorm": True,
        "post_layer_norm": True,
        "original_rope": True,
        "add_qkv_bias": True,
        "add_bias_linear": False,
    }
    kept = ("hidden_size", "num_attention_heads", "eos_token_id", "torch_dtype")
    return made, own | {k: config[k] for k in kept if k in config}


BASE20K = {"rope_type": "default", "rope_theta": 20000.0, "partial_rotary_factor": 0.5}
MODELS = [
    Tiny("glm", "chatglm", "Glm", {"head_dim": 16}),
    Tiny("chatglm", "chatglm", "Glm", {"head_dim": 16, "rope_parameters": BASE20K}, remade=remade),
]

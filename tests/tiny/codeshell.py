"""A tiny CodeShell: transformers' Starcoder2 has the same graph, its tensors other names."""

import numpy as np

from ggq.models.gpt2 import NAMES
from tiny.base import Tiny, fused, renamed


def remade(tensors, config):
    names = [f"self_attn.{n}_proj" for n in "qkv"]
    made = fused(tensors, names, "self_attn.qkv_proj", np.concatenate)
    own = {
        "architectures": ["CodeShellForCausalLM"],
        "model_type": "kclgpt",
        "n_layer": config["num_hidden_layers"],
        "n_head": config["num_attention_heads"],
        "num_query_groups": config["num_key_value_heads"],
        "n_embd": config["hidden_size"],
        "n_positions": config["max_position_embeddings"],
        "layer_norm_epsilon": config["norm_epsilon"],
        "activation_function": "gelu_pytorch_tanh",
        "position_embedding_type": "rope",
        "scale_attn_weights": True,
        "group_query_attention": True,
        "vocab_size": config["vocab_size"],
    }
    return renamed(made, {"mlp.c_proj": "mlp.down_proj"} | NAMES), own


MODELS = [
    Tiny("codeshell", "codeshell", "Starcoder2", {"intermediate_size": 256}, remade=remade),
]

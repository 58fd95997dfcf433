"""Tiny Baichuans, of 32 and 40 layers: transformers' Llama with q, k and v packed; ALiBi in one."""

import numpy as np

from tiny.base import Tiny, fused


def remade(tensors, config):
    names = [f"self_attn.{n}_proj" for n in "qkv"]
    made = fused(tensors, names, "self_attn.W_pack", np.concatenate)
    own = {"architectures": ["BaichuanForCausalLM"], "model_type": "baichuan"}
    return made, config | own


SMALL = {"num_key_value_heads": 2, "num_attention_heads": 2, "num_hidden_layers": 32}
ALIBI = {"remade": remade, "alibi": 8.0, "gain": 0.6}
MODELS = [
    Tiny("baichuan", "baichuan", "Llama", SMALL, remade=remade, gain=0.6),
    Tiny("baichuan alibi", "baichuan", "Llama", SMALL | {"num_hidden_layers": 40}, **ALIBI),
]

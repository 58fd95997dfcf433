"""A tiny InternLM2: transformers' Llama with its tensors as InternLM2's own code stores them."""

import numpy as np

from ggq.models.internlm2 import NAMES
from tiny.base import Tiny, fused, renamed

HEAD = 16


def grouped(parts):
    """Return q, k and v as groups of a key's queries, that key and its value."""
    q, k, v = (x.reshape(-1, HEAD, x.shape[-1]) for x in parts)
    groups = zip(np.split(q, len(k)), k, v, strict=True)
    return np.concatenate([np.concatenate([*qs, key, value]) for qs, key, value in groups])


def remade(tensors, config):
    names = [f"self_attn.{n}_proj" for n in "qkv"]
    made = renamed(fused(tensors, names, "attention.wqkv", grouped), NAMES)
    own = {"architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "bias": False}
    return made, config | own


MODELS = [
    Tiny("internlm2", "internlm2", "Llama", remade=remade),
]

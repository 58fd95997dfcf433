"""A tiny XVERSE: transformers' Llama has the same graph."""

from tiny.base import Tiny


def remade(tensors, config):
    own = {"architectures": ["XverseForCausalLM"], "model_type": "xverse"}
    return tensors, config | own


MODELS = [
    Tiny("xverse", "xverse", "Llama", {"num_key_value_heads": 4}, remade=remade),
]

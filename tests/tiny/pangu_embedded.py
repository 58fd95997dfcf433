"""A tiny openPangu Embedded: transformers' Llama with biases in attention has the same graph."""

from tiny.base import Tiny


def remade(tensors, config):
    own = {"architectures": ["PanguEmbeddedForCausalLM"], "model_type": "PanguEmbedded"}
    return tensors, config | own | {"bias": True}


MODELS = [
    Tiny("pangu", "pangu-embedded", "Llama", {"attention_bias": True}, remade=remade),
]

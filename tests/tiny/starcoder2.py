"""Tiny models of transformers' Starcoder2."""

from tiny.base import YARN, Tiny

STARCODER2 = {"sliding_window": 24, "use_bias": False, "tie_word_embeddings": True}
MODELS = [
    Tiny("starcoder2", "starcoder2", "Starcoder2", {"rope_parameters": YARN}),
    # llama.cpp has no window here and needs biases
    Tiny("starcoder2 window", "starcoder2", "Starcoder2", STARCODER2, peer=None),
]

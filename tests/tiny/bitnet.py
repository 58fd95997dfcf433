"""Tiny models of transformers' BitNet; its weights are floats: tests/test_bitnet.py packs them."""

from tiny.base import Tiny

MODELS = [
    # llama-cpp-python 0.3.36 reads no activation from a file of this name, newer ones do
    Tiny("bitnet", "bitnet", "BitNet", {"tie_word_embeddings": True}, peer=None),
    Tiny("bitnet silu", "bitnet", "BitNet", {"tie_word_embeddings": True, "hidden_act": "silu"}),
]

"""Tiny models of transformers' Qwen2."""

from tiny.base import Tiny

MODELS = [
    Tiny("qwen2", "qwen2", "Qwen2"),
    Tiny("qwen2 tied", "qwen2", "Qwen2", {"tie_word_embeddings": True}),
]

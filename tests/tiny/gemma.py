"""Tiny models of transformers' Gemma."""

from tiny.base import Tiny

MODELS = [
    Tiny("gemma", "gemma", "Gemma", {"head_dim": 32, "tie_word_embeddings": True}),
]

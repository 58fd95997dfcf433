"""Tiny models of transformers' Glm4."""

from tiny.base import Tiny

MODELS = [
    Tiny("glm4", "glm4", "Glm4", {"head_dim": 32, "attention_bias": True}),
]

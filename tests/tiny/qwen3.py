"""Tiny models of transformers' Qwen3."""

from tiny.base import Tiny

MODELS = [
    Tiny("qwen3", "qwen3", "Qwen3", {"head_dim": 32}),
]

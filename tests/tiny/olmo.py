"""Tiny models of transformers' Olmo."""

from tiny.base import Tiny

MODELS = [
    Tiny("olmo", "olmo", "Olmo"),
    Tiny("olmo clamped", "olmo", "Olmo", {"clip_qkv": 0.8}),
]

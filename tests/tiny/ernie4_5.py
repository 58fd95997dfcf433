"""Tiny models of transformers' Ernie4_5."""

from tiny.base import Tiny

MODELS = [
    Tiny("ernie4_5", "ernie4_5", "Ernie4_5", {"head_dim": 32}),
]

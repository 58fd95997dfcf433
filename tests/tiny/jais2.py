"""A tiny model of transformers' Jais2."""

from tiny.base import Tiny

MODELS = [
    Tiny("jais2", "jais2", "Jais2", {"head_dim": 16}),
]

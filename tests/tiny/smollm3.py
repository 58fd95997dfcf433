"""Tiny models of transformers' SmolLM3."""

from tiny.base import Tiny

MODELS = [
    Tiny("smollm3", "smollm3", "SmolLM3", {"num_hidden_layers": 5}),
]

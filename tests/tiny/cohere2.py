"""Tiny models of transformers' Cohere2."""

from tiny.base import Tiny
from tiny.command_r import COHERE

MODELS = [
    Tiny("cohere2", "cohere2", "Cohere2", COHERE | {"sliding_window": 24, "num_hidden_layers": 5}),
]

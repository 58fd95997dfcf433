"""Tiny models of transformers' Olmoe."""

from tiny.base import Tiny

OLMOE = {"num_experts": 7, "num_experts_per_tok": 3, "num_key_value_heads": 4}
MODELS = [
    Tiny("olmoe", "olmoe", "Olmoe", OLMOE),
]

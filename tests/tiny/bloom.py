"""Tiny models of transformers' Bloom; five heads are no power of 2."""

from tiny.base import GPT, Tiny

FIVE = {"hidden_size": 160, "num_attention_heads": 5}
MODELS = [
    Tiny("bloom", "bloom", "Bloom", GPT | FIVE | {"max_position_embeddings": None}),
]

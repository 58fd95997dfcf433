"""Tiny models of transformers' GPTNeoX."""

from tiny.base import Tiny

MODELS = [
    Tiny("gptneox", "gptneox", "GPTNeoX", {"num_key_value_heads": None}),
]

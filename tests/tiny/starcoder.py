"""Tiny models of transformers' GPTBigCode, with one key-value head and with all."""

from tiny.base import GPT, Tiny

MODELS = [
    Tiny("starcoder", "starcoder", "GPTBigCode", GPT),
    Tiny("starcoder heads", "starcoder", "GPTBigCode", GPT | {"multi_query": False}),
    Tiny("starcoder exact", "starcoder", "GPTBigCode", GPT | {"activation_function": "gelu"}),
]

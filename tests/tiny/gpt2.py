"""Tiny models of transformers' GPT2."""

from tiny.base import GPT, Tiny

MODELS = [
    Tiny("gpt2", "gpt2", "GPT2", GPT, suffix="LMHeadModel"),
]

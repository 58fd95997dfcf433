"""Tiny models of transformers' Llama, Mistral and Mixtral."""

from tiny.base import Tiny

MODELS = [
    Tiny("llama", "llama", "Llama"),
    Tiny("mistral", "llama", "Mistral", {"sliding_window": 24}, peer=None),  # it has no window here
    Tiny(
        "mixtral",
        "llama",
        "Mixtral",
        {"num_local_experts": 5, "num_experts_per_tok": 2, "head_dim": None},
    ),
]

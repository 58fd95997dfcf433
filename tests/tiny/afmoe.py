"""Tiny models of transformers' Afmoe."""

from tiny.base import Tiny

AFMOE = {
    "head_dim": 32,
    "num_hidden_layers": 5,
    "num_dense_layers": 1,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "num_shared_experts": 1,
    "moe_intermediate_size": 32,
    "route_scale": 2.5,
    "sliding_window": 24,
    "mup_enabled": True,
}
MODELS = [
    Tiny("afmoe", "afmoe", "Afmoe", AFMOE),
]

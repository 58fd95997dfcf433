"""Tiny models of transformers' Jamba."""

from tiny.base import Tiny

JAMBA = {
    "num_hidden_layers": 4,
    "attn_layer_period": 3,
    "attn_layer_offset": 1,
    "num_experts": 4,
    "mamba_d_state": 16,
}
MODELS = [
    Tiny("jamba", "jamba", "Jamba", JAMBA),
    Tiny("jamba dense", "jamba", "Jamba", JAMBA | {"num_experts": 1, "num_experts_per_tok": 1}),
]

"""Tiny models of transformers' Olmo2 and Olmo3."""

from tiny.base import YARN, Tiny

OLMO3 = {
    "num_hidden_layers": 5,
    "sliding_window": 24,
    "rope_parameters": {
        "full_attention": YARN,
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
MODELS = [
    Tiny("olmo2", "olmo2", "Olmo2"),
    Tiny("olmo3", "olmo2", "Olmo3", OLMO3),
]

"""Tiny models of transformers' Qwen3VL."""

from tiny.base import Tiny

QWEN3VL = {
    "head_dim": 32,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [6, 5, 5],
    },
    "vision_config": {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 64,
        "deepstack_visual_indexes": [0],
    },
}
MODELS = [
    Tiny("qwen3vl", "qwen3vl", "Qwen3VL", QWEN3VL, suffix="ForConditionalGeneration"),
]

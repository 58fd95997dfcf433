"""Tiny models of transformers' Qwen2VL and Qwen2_5_VL."""

from tiny.base import Tiny

QWEN2VL = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
    "vision_config": {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2},
}
QWEN25VL = QWEN2VL | {
    "vision_config": {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": 64,
    },
}
INSIDE = {"suffix": "ForConditionalGeneration"}
MODELS = [
    Tiny("qwen2vl", "qwen2vl", "Qwen2VL", QWEN2VL, **INSIDE),
    Tiny("qwen25vl", "qwen2vl", "Qwen2_5_VL", QWEN25VL, **INSIDE),
]

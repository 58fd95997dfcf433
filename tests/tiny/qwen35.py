"""Tiny models of transformers' Qwen3_5."""

from tiny.base import Tiny

QWEN35 = {
    "head_dim": 32,
    "num_hidden_layers": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 6,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [3, 3, 2],
    },
}
MODELS = [
    Tiny("qwen35", "qwen35", "Qwen3_5", QWEN35, cls_config="Qwen3_5TextConfig"),
]

"""Tiny models of transformers' MiniCPM3."""

from tiny.base import Tiny

MINICPM3 = {
    "num_key_value_heads": 4,
    "q_lora_rank": 48,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [1.0 + 0.5 * i for i in range(8)],
    "original_max_position_embeddings": 256,
}
MODELS = [
    Tiny("minicpm3", "minicpm3", "MiniCPM3", MINICPM3),
    Tiny("minicpm3 longrope", "minicpm3", "MiniCPM3", MINICPM3 | {"rope_parameters": LONGROPE}),
]

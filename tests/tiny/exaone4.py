"""Tiny models of transformers' Exaone4."""

from tiny.base import Tiny

EXAONE4 = {
    "sliding_window": None,
    "layer_types": ["full_attention"] * 2,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    },
}
EXAONE4_WINDOW = {"num_hidden_layers": 5, "sliding_window": 24}
MODELS = [
    Tiny("exaone4", "exaone4", "Exaone4", EXAONE4),
    # llama.cpp knows the kind with a window by its number of layers
    Tiny("exaone4 window", "exaone4", "Exaone4", EXAONE4_WINDOW, peer=None),
]

"""Tiny models of transformers' Phi3."""

from tiny.base import Tiny

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 5.0],
    "partial_rotary_factor": 0.75,
}
PHI4 = {
    "rope_parameters": LONGROPE,
    "original_max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
SHORT = {"original_max_position_embeddings": 256, "max_position_embeddings": 512}
MODELS = [
    Tiny("phi3", "phi3", "Phi3", {"sliding_window": 40}, peer=None),  # llama.cpp has no window
    Tiny("phi4", "phi3", "Phi3", PHI4),
    Tiny("phi4 short", "phi3", "Phi3", PHI4 | SHORT, n_tokens=40),
]

"""Tiny models of transformers' Gemma3n: sparse gates, shared keys and values, a short table."""

from tiny.base import Tiny

OWN = {
    "head_dim": 32,
    "sliding_window": 24,
    "intermediate_size": 1536,  # llama.cpp divides deviations by one less
    "hidden_size_per_layer_input": 256,  # llama.cpp knows no other
    "vocab_size_per_layer_input": 384,
    "num_kv_shared_layers": 0,  # nor another count than all but 20
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "activation_sparsity_pattern": [0.95] * 3,
    "tie_word_embeddings": True,
}
SHARED = OWN | {
    "hidden_size_per_layer_input": 32,
    "vocab_size_per_layer_input": 300,
    "num_hidden_layers": 5,
    "num_kv_shared_layers": 2,
    "layer_types": (["sliding_attention"] * 1 + ["full_attention"]) * 2 + ["sliding_attention"],
    "activation_sparsity_pattern": [0.95, 0.5, 0.0, 0.0, 0.9],
}
TEXT = {"cls_config": "Gemma3nTextConfig"}
MODELS = [
    Tiny("gemma3n", "gemma3n", "Gemma3n", OWN, **TEXT),
    Tiny("gemma3n shared", "gemma3n", "Gemma3n", SHARED, None, **TEXT),
]

"""Tiny models of transformers' Mamba2."""

from tiny.base import Tiny

NO_ATTENTION = {
    "num_attention_heads": None,
    "num_key_value_heads": None,
    "intermediate_size": None,
    "max_position_embeddings": None,
}
MAMBA2 = NO_ATTENTION | {
    "num_hidden_layers": 3,
    "num_heads": 8,
    "head_dim": 16,
    "n_groups": 2,
    "state_size": 16,
}
MODELS = [
    Tiny("mamba2", "mamba2", "Mamba2", MAMBA2),
]

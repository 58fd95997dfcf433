"""Tiny models of transformers' Lfm2."""

from tiny.base import Tiny

LFM2 = {
    "num_hidden_layers": 4,
    "layer_types": ["conv", "full_attention", "conv", "conv"],
    "intermediate_size": 300,
    "block_multiple_of": 32,
    "tie_word_embeddings": True,
}
MODELS = [
    Tiny("lfm2", "lfm2", "Lfm2", LFM2),
]

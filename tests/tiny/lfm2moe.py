"""Tiny models of transformers' Lfm2Moe."""

from tiny.base import Tiny

LFM2MOE = {
    "num_hidden_layers": 4,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    "num_dense_layers": 1,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "tie_word_embeddings": True,
}
MODELS = [
    Tiny("lfm2moe", "lfm2moe", "Lfm2Moe", LFM2MOE),
]

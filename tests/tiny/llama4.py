"""Tiny models of transformers' Llama4ForCausalLM."""

from tiny.base import Tiny

LLAMA4 = {
    "head_dim": 16,
    "num_hidden_layers": 4,
    "intermediate_size": 48,
    "intermediate_size_mlp": 96,
    "num_local_experts": 6,
    "interleave_moe_layer_step": 2,
}
SHORT = {"attention_chunk_size": 24, "floor_scale": 16}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0},
    **{"high_freq_factor": 4.0, "original_max_position_embeddings": 64},
}
DENSE = {"layer_types": ["full_attention"] * 4, "no_rope_layers": [1] * 4, "moe_layers": []}
DENSE |= {"interleave_moe_layer_step": 0, "num_local_experts": 0}
CLASSES = {"cls_config": "Llama4TextConfig"}
MODELS = [
    Tiny("llama4", "llama4", "Llama4", LLAMA4 | {"rope_parameters": LLAMA3}, **CLASSES),
    # llama.cpp has one length of pieces, and no model without experts
    Tiny("llama4 pieces", "llama4", "Llama4", LLAMA4 | SHORT, peer=None, **CLASSES),
    Tiny("llama4 dense", "llama4", "Llama4", LLAMA4 | DENSE, peer=None, **CLASSES),
]

"""Tiny models of transformers' GraniteMoeHybrid."""

from tiny.base import Tiny

GRANITE_H = {
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "shared_intermediate_size": 96,
    "num_local_experts": 0,
    "attention_multiplier": 0.3,
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "logits_scaling": 4.0,
}
GRANITE_H_MOE = GRANITE_H | {"num_local_experts": 6, "intermediate_size": 64}
BAMBA = {
    "num_hidden_layers": 3,
    "attn_layer_indices": [1],
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_state": 16,
    "mamba_n_groups": 2,
}
MODELS = [
    Tiny("granite h", "granitehybrid", "GraniteMoeHybrid", GRANITE_H),
    Tiny("granite h moe", "granitehybrid", "GraniteMoeHybrid", GRANITE_H_MOE),
    Tiny("bamba", "granitehybrid", "Bamba", BAMBA, exports=False),
]

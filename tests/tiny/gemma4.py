"""Tiny models of transformers' Gemma4."""

from tiny.base import PEER, Tiny

GEMMA4 = {
    "head_dim": 32,
    "global_head_dim": 64,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "num_hidden_layers": 7,
    "sliding_window": 24,
    "hidden_size_per_layer_input": 0,
    "final_logit_softcapping": 5.0,
    "tie_word_embeddings": True,
}
GEMMA4E = {
    "head_dim": 32,
    "global_head_dim": 64,
    "num_hidden_layers": 6,
    "layer_types": (["sliding_attention"] * 2 + ["full_attention"]) * 2,
    "num_kv_shared_layers": 3,
    "use_double_wide_mlp": True,
    "sliding_window": 24,
    "hidden_size_per_layer_input": 64,  # llama.cpp misreads narrower tables
    "final_logit_softcapping": 5.0,
    "vocab_size_per_layer_input": 384,
    "tie_word_embeddings": True,
}
GEMMA4MOE = GEMMA4 | {
    "enable_moe_block": True,
    "num_experts": 6,
    "top_k_experts": 2,
    "moe_intermediate_size": 64,
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
}
MODELS = [
    Tiny("gemma4", "gemma4", "Gemma4", GEMMA4, 3 * PEER, "Gemma4TextConfig"),
    Tiny("gemma4 e", "gemma4", "Gemma4", GEMMA4E, 3 * PEER, "Gemma4TextConfig"),
    Tiny("gemma4 moe", "gemma4", "Gemma4", GEMMA4MOE, cls_config="Gemma4TextConfig"),
]

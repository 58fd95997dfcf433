"""Tiny models of transformers' Ernie4_5_Moe."""

from tiny.base import Tiny

ERNIE_MOE = {
    "head_dim": 32,
    "num_hidden_layers": 4,
    "moe_layer_start_index": 1,
    "moe_num_experts": 6,
    "moe_k": 2,
    "moe_num_shared_experts": 1,
    "moe_intermediate_size": 48,
}
STEP = ERNIE_MOE | {"moe_layer_interval": 2}
MODELS = [
    Tiny("ernie4_5 moe", "ernie4_5-moe", "Ernie4_5_Moe", ERNIE_MOE),
    # llama.cpp reads experts from every layer behind the first
    Tiny("ernie4_5 step", "ernie4_5-moe", "Ernie4_5_Moe", STEP, peer=None),
]

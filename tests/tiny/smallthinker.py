"""Tiny SmallThinkers, by a twin in plain float64."""

import smallthinker_twin

from tiny.base import Tiny

SIZES = {
    "architectures": ["SmallThinkerForCausalLM"],
    "head_dim": 16,
    "num_hidden_layers": 5,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "moe_ffn_hidden_size": 32,
    "moe_num_primary_experts": 6,
    "moe_num_active_primary_experts": 2,
    "moe_primary_router_apply_softmax": False,
    "sliding_window_layout": [0] * 5,
    "rope_layout": [1] * 5,
    "sliding_window_size": 4096,
    "intermediate_size": None,
}
SOME = {"sliding_window_layout": [0, 1, 1, 1, 0], "rope_layout": [0, 1, 1, 1, 0]}
SOFT = {"moe_primary_router_apply_softmax": True, "num_hidden_layers": 3}
SOFT |= {"sliding_window_layout": [0] * 3, "rope_layout": [1] * 3}
MODELS = [
    Tiny("smallthinker", "smallthinker", "SmallThinker", SIZES | SOFT, twin=smallthinker_twin),
    Tiny("smallthinker nope", "smallthinker", "SmallThinker", SIZES | SOME, twin=smallthinker_twin),
    Tiny(  # llama.cpp has one window, whatever the file says
        "smallthinker window", "smallthinker", "SmallThinker",
        SIZES | SOME | {"sliding_window_size": 24}, peer=None, twin=smallthinker_twin,
    ),
]  # fmt: skip

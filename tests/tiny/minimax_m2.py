"""Tiny models of transformers' MiniMaxM2."""

from tiny.base import Tiny

MINIMAX_M2 = {
    "head_dim": 32,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
}
MODELS = [
    Tiny("minimax-m2", "minimax-m2", "MiniMaxM2", MINIMAX_M2),
]

"""Tiny models of transformers' HunYuanMoEV1."""

from tiny.base import Tiny

HUNYUAN_MOE = {"head_dim": 32, "num_experts": 6, "moe_topk": 2, "attention_bias": False}
MODELS = [
    Tiny("hunyuan moe", "hunyuan-moe", "HunYuanMoEV1", HUNYUAN_MOE),
]

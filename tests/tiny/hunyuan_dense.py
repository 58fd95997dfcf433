"""Tiny models of transformers' HunYuanDenseV1."""

from tiny.base import Tiny

ALPHA = {"rope_type": "dynamic", "rope_theta": 10000.0, "alpha": 50.0, "factor": 1.0}
MODELS = [
    Tiny("hunyuan dense", "hunyuan-dense", "HunYuanDenseV1", {"head_dim": 32}),
    Tiny(
        "hunyuan alpha",
        "hunyuan-dense",
        "HunYuanDenseV1",
        {"head_dim": 16, "rope_parameters": ALPHA},
    ),
]

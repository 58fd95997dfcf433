"""Tiny models of transformers' Qwen3VLMoe."""

from tiny.base import Tiny
from tiny.qwen3vl import QWEN3VL

QWEN3VLMOE = QWEN3VL | {
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 96,
}
MODELS = [
    Tiny("qwen3vlmoe", "qwen3vlmoe", "Qwen3VLMoe", QWEN3VLMOE, suffix="ForConditionalGeneration"),
]

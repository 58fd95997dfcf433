"""Tiny models of transformers' StableLm."""

from tiny.base import Tiny

MODELS = [
    Tiny("stablelm", "stablelm", "StableLm", {"use_qkv_bias": True}),
]

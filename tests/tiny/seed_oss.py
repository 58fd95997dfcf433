"""Tiny models of transformers' SeedOss."""

from tiny.base import Tiny

MODELS = [
    Tiny("seed_oss", "seed_oss", "SeedOss", {"head_dim": 32}),
]

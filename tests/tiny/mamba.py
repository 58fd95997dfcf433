"""Tiny models of transformers' Mamba and FalconMamba."""

from tiny.base import Tiny
from tiny.mamba2 import NO_ATTENTION

MAMBA = NO_ATTENTION | {"intermediate_size": 128, "num_hidden_layers": 3, "state_size": 16}
MODELS = [
    Tiny("mamba", "mamba", "Mamba", MAMBA),
    Tiny("falcon mamba", "mamba", "FalconMamba", MAMBA | {"time_step_rank": 8}),
]

"""Tiny models of transformers' Phi."""

from tiny.base import Tiny

MODELS = [
    Tiny("phi2", "phi2", "Phi"),
]

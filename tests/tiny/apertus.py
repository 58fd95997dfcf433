"""A tiny model of transformers' Apertus."""

from tiny.base import Tiny

MODELS = [
    Tiny("apertus", "apertus", "Apertus"),
]

"""Tiny models of transformers' Arcee."""

from tiny.base import Tiny

MODELS = [
    Tiny("arcee", "arcee", "Arcee"),
]

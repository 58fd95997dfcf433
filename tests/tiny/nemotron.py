"""Tiny models of transformers' Nemotron."""

from tiny.base import Tiny

MODELS = [
    Tiny("nemotron", "nemotron", "Nemotron"),
]

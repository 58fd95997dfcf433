"""Tiny models of transformers' Cohere."""

from tiny.base import Tiny

COHERE = {"logit_scale": 0.25, "tie_word_embeddings": True}
MODELS = [
    Tiny("command-r", "command-r", "Cohere", COHERE),
]

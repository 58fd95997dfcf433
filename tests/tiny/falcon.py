"""Tiny models of transformers' Falcon: 7B's, 40B's and Falcon 2's layers."""

from tiny.base import GPT, Tiny

NEW = {"new_decoder_architecture": True, "num_kv_heads": 2, "tie_word_embeddings": False}
MODELS = [
    Tiny("falcon", "falcon", "Falcon", GPT),
    Tiny("falcon new", "falcon", "Falcon", GPT | NEW),
    Tiny("falcon 2", "falcon", "Falcon", GPT | NEW | {"num_ln_in_parallel_attn": 1}),
    # llama.cpp reads as many key-value heads as there are heads of queries
    Tiny("falcon heads", "falcon", "Falcon", GPT | {"multi_query": False, "bias": True}, peer=None),
]

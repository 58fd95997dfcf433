"""Tiny models of transformers' Mpt; five heads are no power of 2."""

from tiny.base import GPT, Tiny

MPT = GPT | {"max_position_embeddings": None, "max_seq_len": 256}
FIVE = {"hidden_size": 160, "num_attention_heads": 5}
MODELS = [
    Tiny("mpt", "mpt", "Mpt", MPT),
    Tiny(
        "mpt clamped",
        "mpt",
        "Mpt",
        MPT | FIVE | {"attn_config": {"clip_qkv": 0.8}},
    ),
]

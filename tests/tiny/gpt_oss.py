"""Tiny models of transformers' GptOss."""

from tiny.base import Tiny

WHOLE_YARN = {  # mixes 0 to 3.9999 pairs: llama.cpp rounds that, gpt-oss does not
    "rope_type": "yarn",
    "truncate": False,
    "rope_theta": 10768.0,
    "factor": 8.0,
    "original_max_position_embeddings": 64,
}
GPT_OSS = {
    "head_dim": 32,
    "num_hidden_layers": 3,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "sliding_window": 24,
    "rope_parameters": WHOLE_YARN,
}
MODELS = [
    Tiny("gpt-oss", "gpt-oss", "GptOss", GPT_OSS),
]

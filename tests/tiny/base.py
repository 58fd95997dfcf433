"""What a tiny model is, and the settings that most of them share."""

from dataclasses import dataclass, field
from typing import Any

PEER = 4e-3  # llama.cpp looks activations up in f16 tables


@dataclass(frozen=True)
class Tiny:
    """A tiny model: its transformers class and config; ``peer``: what llama.cpp may differ by.

    Sizes are small ones at which windows, original contexts and routers matter.
    """

    label: str
    arch: str
    cls: str
    config: dict[str, Any] = field(default_factory=dict)
    peer: float | None = PEER
    cls_config: str = ""
    suffix: str = "ForCausalLM"
    n_tokens: int = 90
    n_ctx: int = 256


BASE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 4.0,
    "beta_slow": 1.0,
}
GPT = {  # classes whose settings have other names
    "intermediate_size": None,
    "num_key_value_heads": None,
    "tie_word_embeddings": True,
}

"""What a tiny model is, and the settings that most of them share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

PEER = 4e-3  # llama.cpp looks activations up in f16 tables


@dataclass(frozen=True)
class Tiny:
    """A tiny model: its transformers class and config; ``peer``: what llama.cpp may differ by.

    Sizes are small ones at which windows, original contexts and routers matter. ``remade``: what
    makes the saved tensors and config those of a class that transformers lacks, whose graph is the
    same; ``alibi``: the graph with ALiBi, whose greatest exponent this is, for positions;
    ``gain``: the size of matrices, at which scores matter and many layers do not multiply noise;
    ``prepare``: what is done to the model's weights before it is asked; ``twin``: a module with
    the weights and the graph of a class that transformers lacks and that is like no other.
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
    exports: bool = True  # False: this kind is not written as a folder, others of its name are
    remade: Callable[[dict[str, Any], dict[str, Any]], tuple[dict, dict]] | None = None
    alibi: float = 0.0
    prepare: Callable[[Any], None] | None = None
    gain: float = 1.5
    twin: Any = None


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


def renamed(tensors, names):
    """Return tensors with parts of their names replaced, one after the other."""

    def other(name):
        for old, new in names.items():
            name = name.replace(old, new)
        return name

    return {other(name): x for name, x in tensors.items()}


def fused(tensors, parts, name, join):
    """Return tensors with those of each layer called ``parts`` joined into one called ``name``."""
    made = dict(tensors)
    for first in [n for n in tensors if f".{parts[0]}." in n]:
        names = [first.replace(f".{parts[0]}.", f".{part}.") for part in parts]
        made[first.replace(f".{parts[0]}.", f".{name}.")] = join([made.pop(n) for n in names])
    return made

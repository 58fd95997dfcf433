"""A tiny EXAONE 3: transformers computes it as Llama, its files have names of their own."""

from ggq.models.exaone import NAMES
from tiny.base import Tiny, renamed

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def remade(tensors, config):
    own = {"architectures": ["ExaoneForCausalLM"], "model_type": "exaone"}
    config["num_layers"] = config.pop("num_hidden_layers")
    config["layer_norm_epsilon"] = config.pop("rms_norm_eps")
    config["activation_function"] = config.pop("hidden_act")
    return renamed(tensors, NAMES), config | own


MODELS = [
    Tiny("exaone", "exaone", "Llama", {"rope_parameters": LLAMA3}, remade=remade),
]

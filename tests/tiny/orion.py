"""A tiny Orion: transformers' StableLm, all of whose columns rotate, has the same graph."""

from tiny.base import Tiny


def remade(tensors, config):
    own = {"architectures": ["OrionForCausalLM"], "model_type": "orion"}
    dropped = ("use_qkv_bias", "use_parallel_residual", "qk_layernorm", "rope_parameters")
    kept = {k: v for k, v in config.items() if k not in dropped}
    kept["rms_norm_eps"] = kept.pop("layer_norm_eps")
    return tensors, kept | own


WHOLE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
MODELS = [
    Tiny("orion", "orion", "StableLm", {"rope_parameters": WHOLE}, remade=remade),
]

"""A tiny MiniCPM: transformers' Granite has the same graph, its factors other names."""

from tiny.base import Tiny


def remade(tensors, config):
    own = {"architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm"}
    dropped = [name for name in config if name.endswith(("_multiplier", "_scaling"))]
    kept = {k: v for k, v in config.items() if k not in dropped}
    return tensors, kept | own | {"scale_emb": 3, "scale_depth": 1.4, "dim_model_base": 32}


FACTORS = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 1.4 / 2**0.5,
    "logits_scaling": 2.0,
    "attention_multiplier": 0.25,
}
MODELS = [
    Tiny("minicpm", "minicpm", "Granite", FACTORS, remade=remade),
]

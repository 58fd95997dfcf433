"""What an unsupported model needs that ggq lacks, told from its config.json or GGUF keys alone.

A list of signs, each a key and what it stands for; it knows no architecture.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["missing_piece"]

# Part of a key's name (in config.json or after the architecture's name in a GGUF) -> what it means.
SIGNS = (
    (("kv_lora_rank",), "multi-head latent attention (MLA)"),
    (("time_mix", "wkv.", "rwkv", "attention_hidden_size"), "RWKV time mixing"),
    (("mamba", "ssm.", "ssm_cfg", "state_size", "time_step_rank"), "Mamba state-space layers"),
    (("linear_num_key_heads", "linear_attn_config"), "linear attention layers"),
    (("conv_L_cache", "shortconv"), "short convolution layers"),
    (("hidden_size_per_layer_input", "embedding_length_per_layer"), "per-layer embeddings"),
    (("num_kv_shared_layers", "shared_kv_layers"), "layers that share keys and values"),
    (("n_shared_experts", "expert_shared", "shared_expert"), "shared experts"),
    (("is_encoder_decoder", "decoder_block_count"), "an encoder with cross-attention"),
    (("parallel_residual", "parallel_attn"), "attention and feed-forward side by side"),
    (("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"), "LayerNorm with biases"),
    (("expert_count", "num_experts", "num_local_experts"), "its way of routing to experts"),
    (("layer_types",), "its kinds of layers"),
)
OTHERWISE = "its tensor names and forward pass"


def missing_piece(facts: Mapping[str, Any]) -> str:
    """Return in words what ``facts`` (config.json or GGUF metadata) asks for: the first sign."""
    text = facts.get("text_config")
    facts = {**facts, **text} if isinstance(text, Mapping) else facts
    for names, piece in SIGNS:
        if any(_set(value) and name in str(key) for key, value in facts.items() for name in names):
            return piece
    return OTHERWISE


def _set(value: Any) -> bool:
    """Tell whether a setting is in use: neither absent nor off."""
    return value is not None and value is not False and not (isinstance(value, int) and value == 0)

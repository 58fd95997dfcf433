"""Tiny models of transformers' NemotronH with experts."""

from tiny.base import Tiny
from tiny.nemotron_h import SPACES

NEMOTRON_H_MOE = SPACES | {
    "layers_block_type": ["linear_attention", "moe", "full_attention", "moe"],
    "n_routed_experts": 6,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 48,
    "routed_scaling_factor": 2.5,
}
LATENT = NEMOTRON_H_MOE | {"moe_latent_size": 32}
MODELS = [
    Tiny("nemotron_h moe", "nemotron_h_moe", "NemotronH", NEMOTRON_H_MOE),
    Tiny("nemotron_h latent", "nemotron_h_moe", "NemotronH", LATENT),
]

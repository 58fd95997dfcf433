"""Tiny models of transformers' NemotronH."""

from tiny.base import Tiny

SPACES = {
    "num_hidden_layers": None,
    "head_dim": 32,
    "mamba_num_heads": 8,
    "mamba_head_dim": 16,
    "n_groups": 2,
    "ssm_state_size": 16,
    "rescale_prenorm_residual": False,
    "time_step_min": 1e-9,
}
NEMOTRON_H = SPACES | {
    "layers_block_type": ["linear_attention", "mlp", "full_attention", "mlp", "linear_attention"],
}
MODELS = [
    Tiny("nemotron_h", "nemotron_h", "NemotronH", NEMOTRON_H),
]

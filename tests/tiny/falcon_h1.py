"""Tiny models of transformers' FalconH1, every factor another one."""

from tiny.base import PEER, Tiny

FALCON_H1 = {
    "mamba_n_heads": 8,
    "mamba_d_head": 16,
    "mamba_d_ssm": 128,
    "mamba_d_state": 16,
    "embedding_multiplier": 1.5,
    "lm_head_multiplier": 0.7,
    "mlp_multipliers": [0.8, 1.3],
    "key_multiplier": 0.6,
    "attention_in_multiplier": 1.1,
    "attention_out_multiplier": 0.9,
    "ssm_in_multiplier": 1.2,
    "ssm_out_multiplier": 0.85,
    "ssm_multipliers": [0.9, 1.1, 0.7, 1.4, 0.5],
}
NORMED = FALCON_H1 | {
    "mamba_rms_norm": True,
    "mamba_norm_before_gate": False,
    "mamba_n_groups": 2,
}
MODELS = [
    Tiny("falcon h1", "falcon-h1", "FalconH1", FALCON_H1),
    Tiny("falcon h1 norm", "falcon-h1", "FalconH1", NORMED, 2 * PEER),
]

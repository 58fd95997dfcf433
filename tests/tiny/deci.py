"""A tiny Nemotron NAS, by a twin in plain float64: layers of all kinds."""

import deci_twin

from tiny.base import Tiny


def block(group=None, share=None, mapped=False):
    attention = {"n_heads_in_group": group, "no_op": not (group or mapped), "sparsify": None}
    attention |= {"replace_with_linear": mapped, "window_length": None, "num_sink_tokens": None}
    ffn = {"ffn_mult": share, "no_op": share is None, "replace_with_linear": False}
    return {"attention": attention, "ffn": ffn | {"sparsify": None}}


CONFIG = {
    "architectures": ["DeciLMForCausalLM"],
    "num_key_value_heads": None,
    "intermediate_size": None,
    "num_hidden_layers": 5,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "block_configs": [
        *(block(2, 5.25), block(None, 10.5), block(4, 5.25), block(None, 5.25, mapped=True)),
        block(),
    ],
}
WIDTHS = {"num_hidden_layers": 3, "block_configs": [block(2, 5.25), block(1, 10.5), block(4, 2.7)]}
MODELS = [
    # llama.cpp gives a tiny layer without keys no memory, and ends
    Tiny("deci", "deci", "DeciLM", CONFIG, peer=None, twin=deci_twin),
    Tiny("deci widths", "deci", "DeciLM", CONFIG | WIDTHS, twin=deci_twin),
]

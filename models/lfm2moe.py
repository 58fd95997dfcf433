"""Liquid LFM2 with experts: after some dense layers, sigmoid gates with a bias for choosing."""

from typing import Any

from ggq.models.base import Key, Tensor
from ggq.models.keys import EXPERT_KEYS, changed
from ggq.models.lfm2 import Lfm2, lfm2_rows
from ggq.models.tables import expert_rows, with_experts

__all__ = ["ARCHITECTURE"]

EXPERTS = "feed_forward.experts.{e}."
SIGMOID = 2  # what GGUF calls it


class Lfm2MoE(Lfm2):
    name = "lfm2moe"
    hf_classes = ("Lfm2MoeForCausalLM",)
    hf_model_type = "lfm2_moe"
    keys = changed(
        (*Lfm2.keys, *EXPERT_KEYS),
        Key("{arch}.feed_forward_length", ("intermediate_size",), "n_ff", "u32s", required=True),
        Key("{arch}.leading_dense_block_count", ("num_dense_layers",), "n_dense", default=0),
        Key("{arch}.expert_gating_func", (), derive=lambda config: SIGMOID),
        Key("{arch}.expert_weights_scale", ("routed_scaling_factor",), "expert_scale", "f32"),
    )
    config_defaults = Lfm2.config_defaults | {
        "num_dense_layers": 2,
        "num_experts": 32,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1792,
    }
    tensors = lfm2_rows(
        with_experts(
            *expert_rows(f"{EXPERTS}w1", f"{EXPERTS}w3", f"{EXPERTS}w2", "feed_forward.gate"),
            Tensor(
                "blk.{i}.exp_probs_b.bias",
                ("model.layers.{i}.feed_forward.expert_bias",),
                ("expert",),
                role="bias",
                optional=True,
                f32=True,
                only="experts",
            ),
        )
    )

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        return super().finish(values) | {"gating": "sigmoid", "expert_normalize": True}


ARCHITECTURE = Lfm2MoE()

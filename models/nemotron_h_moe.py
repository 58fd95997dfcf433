"""NVIDIA Nemotron 3: nemotron_h's layers, networks without gates as experts, some narrower."""

from collections.abc import Mapping
from typing import Any

from ggq.models.layers.base import Part, Values
from ggq.models.layers.experts import Experts, router_bias
from ggq.models.nemotron_h import EXPERTS, NemotronH, kinds, nemotron_rows
from ggq.models.table import Key, changed, rows

__all__ = ["ARCHITECTURE"]

# What narrower experts see is no norm's output: the weights here take over no scale.
AHEAD: dict[str, Any] = {"input": "ffn_in", "part": Experts, "bias": False}
PLAIN: dict[str, Any] = {"part": Experts, "bias": False}
FEEDS = (
    *rows("ffn_gate_inp", "mlp.gate", ("expert", "embd"), role="router", **AHEAD),
    router_bias("mlp.gate.e_score_correction_bias"),
    *rows(
        "ffn_latent_down",
        "mlp.fc1_latent_proj",
        ("expert_in", "embd"),
        role="other",
        optional=True,
        **AHEAD,
    ),
    *rows(
        "ffn_latent_up",
        "mlp.fc2_latent_proj",
        ("embd", "expert_in"),
        role="other",
        optional=True,
        input="latent_act",
        **PLAIN,
    ),
    *rows(
        "ffn_up_exps",
        "mlp.experts.{e}.up_proj",
        ("expert", "ff_expert", "expert_in"),
        role="ffn_up",
        input="experts_in",
        **PLAIN,
    ),
    *rows(
        "ffn_down_exps",
        "mlp.experts.{e}.down_proj",
        ("expert", "expert_in", "ff_expert"),
        role="ffn_down",
        input="experts_act",
        **PLAIN,
    ),
    *rows(
        "ffn_up_shexp", "mlp.shared_experts.up_proj", ("ff_shared", "embd"), role="ffn_up", **AHEAD
    ),
    *rows(
        "ffn_down_shexp",
        "mlp.shared_experts.down_proj",
        ("embd", "ff_shared"),
        role="ffn_down",
        input="shared_act",
        **PLAIN,
    ),
)


class NemotronHMoE(NemotronH):
    name = "nemotron_h_moe"
    hf_classes = ("NemotronHForCausalLM",)
    hf_model_type = "nemotron_h"
    network = EXPERTS
    keys = changed(
        NemotronH.keys,
        Key("{arch}.expert_used_count", ("num_experts_per_tok",), "n_expert_used", required=True),
        Key("{arch}.expert_feed_forward_length", ("moe_intermediate_size",), "n_ff_expert"),
        Key(
            "{arch}.expert_shared_feed_forward_length",
            ("moe_shared_expert_intermediate_size",),
            "n_ff_shared",
        ),
        Key("{arch}.expert_count", ("n_routed_experts",), "n_expert", required=True),
        Key("{arch}.expert_shared_count", ("n_shared_experts",), "n_shared"),
        Key("{arch}.expert_weights_norm", ("norm_topk_prob",), "expert_normalize", "bool"),
        Key("{arch}.expert_weights_scale", ("routed_scaling_factor",), "expert_scale", "f32"),
        Key("{arch}.expert_group_count", ("n_group",), "n_expert_group", default=1),
        Key("{arch}.expert_group_used_count", ("topk_group",), "n_expert_group_used", default=1),
        Key("{arch}.moe_latent_size", ("moe_latent_size",), "n_latent", default=0),
    )
    config_defaults = NemotronH.config_defaults | {
        "moe_intermediate_size": 7688,
        "moe_shared_expert_intermediate_size": 7688,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
    }
    tensors = nemotron_rows(*FEEDS)

    def suits(self, config: Mapping[str, Any]) -> bool:
        return EXPERTS in kinds(config)

    def feed(self, values: Values, i: int) -> Part:
        width = values["n_latent"] or values["n_embd"]
        own = {"gating": "sigmoid", "activation": "relu2", "gated": False, "n_in": width}
        return Experts.of(values, i, **own)


ARCHITECTURE = NemotronHMoE()

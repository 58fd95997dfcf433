"""Liquid LFM2 with experts: after some dense layers, sigmoid gates with a bias for choosing."""

from typing import Any

from ggq.models.hparams import HParams
from ggq.models.layers import experts, feed_forward
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import GATING, Experts, expert_rows, router_bias
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.lfm2 import Lfm2, lfm2_rows
from ggq.models.table import Key, changed

__all__ = ["ARCHITECTURE"]

EXPERTS = "feed_forward.experts.{e}."
ROUTER = "feed_forward.gate"


class Lfm2MoE(Lfm2):
    name = "lfm2moe"
    hf_classes = ("Lfm2MoeForCausalLM",)
    hf_model_type = "lfm2_moe"
    fixed = {"norm_topk_prob": (True,)}  # noqa: RUF012 - read only
    keys = changed(
        (*Lfm2.keys, *experts.KEYS),
        Key("{arch}.feed_forward_length", ("intermediate_size",), "n_ff", "u32s", required=True),
        Key("{arch}.leading_dense_block_count", ("num_dense_layers",), "n_dense", default=0),
        Key("{arch}.expert_gating_func", (), derive=lambda config: GATING["sigmoid"]),
        Key("{arch}.expert_weights_scale", ("routed_scaling_factor",), "expert_scale", "f32"),
    )
    config_defaults = Lfm2.config_defaults | {
        "num_dense_layers": 2,
        "num_experts": 32,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1792,
    }
    tensors = lfm2_rows(
        *feed_forward.TENSORS,
        *expert_rows(f"{EXPERTS}w1", f"{EXPERTS}w3", f"{EXPERTS}w2", ROUTER),
        router_bias("feed_forward.expert_bias"),
    )

    def layer(self, values: Values, i: int) -> Layer:
        if i < values["n_dense"] or not values["n_expert"]:
            return Layer(self.mixer(values, i), FeedForward.of(values, i))
        feed = Experts.of(values, i, gating="sigmoid", normalize=True)
        return Layer(self.mixer(values, i), feed)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        own = {"num_experts": hp.n_expert, "num_local_experts": None}
        return {**super().export_config(hp), "block_auto_adjust_ff_dim": None, **own}


ARCHITECTURE = Lfm2MoE()

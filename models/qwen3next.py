"""Qwen3-Next: qwen35moe's layers, the DeltaNet's weights joined and its heads in HF's order."""

from ggq.models import ledger
from ggq.models.layers import delta_net, experts
from ggq.models.layers.base import Part, Values
from ggq.models.layers.experts import EXPERT_TENSORS, SHARED_TENSORS, Experts
from ggq.models.qwen35 import QWEN35_KEYS, Qwen35, qwen35_rows
from ggq.models.table import Key, changed

__all__ = ["ARCHITECTURE"]


class Qwen3Next(Qwen35):
    name = "qwen3next"
    hf_classes = ("Qwen3NextForCausalLM",)
    hf_model_type = "qwen3_next"
    grouped = True
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "decoder_sparse_step": (1,),
        "mlp_only_layers": ([],),
        "norm_topk_prob": (True,),
    }
    keys = changed(
        (*QWEN35_KEYS, *experts.KEYS),
        Key(
            "{arch}.expert_shared_feed_forward_length",
            ("shared_expert_intermediate_size",),
            "n_ff_shared",
            default=0,
        ),
        without=("{arch}.rope.dimension_sections",),
    )
    config_defaults = Qwen35.config_defaults | {
        "intermediate_size": 5632,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
        "norm_topk_prob": True,
    }
    tensors = qwen35_rows(*EXPERT_TENSORS, *SHARED_TENSORS, delta=delta_net.GROUPED_TENSORS)

    def feed(self, values: Values, i: int) -> Part:
        return Experts.of(values, i, normalize=True, shared_gate=True)


ARCHITECTURE = Qwen3Next()

"""Qwen3.5 and 3.6 with experts: qwen35's layers, mixtures with a gated shared expert."""

from ggq.models.layers import experts, feed_forward
from ggq.models.layers.base import Part, Values
from ggq.models.layers.experts import EXPERT_TENSORS, SHARED_TENSORS, Experts
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.qwen35 import QWEN35_KEYS, Qwen35, qwen35_rows
from ggq.models.table import Key, changed

__all__ = ["ARCHITECTURE"]


class Qwen35MoE(Qwen35):
    name = "qwen35moe"
    hf_classes = ("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration")
    hf_model_type = "qwen3_5_moe_text"
    reads = ("intermediate_size",)
    rope_reads = ("mrope_section", "mrope_interleaved")
    keys = changed(
        (*QWEN35_KEYS, *experts.KEYS),
        Key("{arch}.feed_forward_length", ("moe_intermediate_size",), "n_ff", "u32s"),
        Key(
            "{arch}.expert_shared_feed_forward_length",
            ("shared_expert_intermediate_size",),
            "n_ff_shared",
            default=0,
        ),
    )
    config_defaults = Qwen35.config_defaults | {
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 512,
        "shared_expert_intermediate_size": 512,
    }
    tensors = qwen35_rows(*feed_forward.TENSORS, *EXPERT_TENSORS, *SHARED_TENSORS)

    def feed(self, values: Values, i: int) -> Part:
        if not values["n_expert"]:
            return FeedForward.of(values, i)
        return Experts.of(values, i, normalize=True, shared_gate=True)


ARCHITECTURE = Qwen35MoE()

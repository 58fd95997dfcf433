"""Qwen3 with experts: attention as in qwen3, every layer a mixture."""

from collections.abc import Mapping
from typing import Any

from ggq.errors import ModelError
from ggq.models.blocks import Decoder
from ggq.models.keys import DECODER_KEYS, EXPERT_KEYS
from ggq.models.qwen3 import Qwen3
from ggq.models.tables import EXPERT_TENSORS, QK_NORMS

__all__ = ["ARCHITECTURE"]


class Qwen3MoE(Decoder):
    name = "qwen3moe"
    hf_classes = ("Qwen3MoeForCausalLM",)
    hf_model_type = "qwen3_moe"
    rope_kind = "neox"
    always_normalized = False  # where the config does not say
    keys = (*DECODER_KEYS, *EXPERT_KEYS)
    config_defaults = Qwen3.config_defaults | {
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
    }
    tensors = (*EXPERT_TENSORS, *QK_NORMS)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        if flat.get("mlp_only_layers") or flat.get("decoder_sparse_step", 1) != 1:
            raise ModelError("qwen3moe: dense layers between the mixtures are not supported")
        # GGUF has no key for it; published models all do
        if not flat.get("norm_topk_prob", self.always_normalized):
            raise ModelError("qwen3moe: norm_topk_prob is not set, which GGUF cannot express")
        return flat

    def export_config(self, hp: Any) -> dict[str, Any]:
        return {"norm_topk_prob": True}

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        return values | {"expert_normalize": True}


ARCHITECTURE = Qwen3MoE()

"""Qwen3 with experts: attention as in qwen3, every layer a mixture."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ggq.errors import ModelError
from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, DECODER_TENSORS
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.qwen3 import Qwen3
from ggq.models.table import Key

__all__ = ["ARCHITECTURE", "Qwen3MoE"]


class Qwen3MoE(Architecture):
    name = "qwen3moe"
    hf_classes = ("Qwen3MoeForCausalLM",)
    hf_model_type = "qwen3_moe"
    fixed = {"hidden_act": ledger.SILU, "decoder_sparse_step": (1,)}  # noqa: RUF012 - read only
    reads = (*ledger.WINDOWS, "norm_topk_prob", "mlp_only_layers", "intermediate_size")

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        return ledger.windows(config, slides=None)

    always_normalized = False  # where the config does not say
    keys: ClassVar[tuple[Key, ...]] = (*DECODER_KEYS, *experts.KEYS)
    config_defaults = Qwen3.config_defaults | {
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
    }
    tensors = (*DECODER_TENSORS, *experts.EXPERT_TENSORS, *attention.QK_NORMS)

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), norms="head")
        if values["n_expert"]:
            return Layer(mixer, Experts.of(values, i, normalize=True))
        return Layer(mixer, FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        flat = super().config(config)
        if flat.get("mlp_only_layers") or flat.get("decoder_sparse_step", 1) != 1:
            raise ModelError("qwen3moe: dense layers between the mixtures are not supported")
        # GGUF has no key for it; published models all do
        if not flat.get("norm_topk_prob", self.always_normalized):
            raise ModelError("qwen3moe: norm_topk_prob is not set, which GGUF cannot express")
        return flat

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return {"norm_topk_prob": True}


ARCHITECTURE = Qwen3MoE()

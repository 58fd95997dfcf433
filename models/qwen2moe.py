"""Qwen1.5 and 2 with experts: attention as in qwen2, mixtures with a gated shared expert."""

from collections.abc import Iterator, Mapping
from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, FF_NORM, HEAD, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import EXPERT_TENSORS, SHARED_TENSORS, Experts
from ggq.models.qwen2 import Qwen2
from ggq.models.table import Key

__all__ = ["ARCHITECTURE"]


def _slides(config: Mapping[str, Any], i: int) -> bool:
    """Tell whether layer ``i`` has a window: every other one below max_window_layers."""
    return i % 2 == 0 and not ledger.upper_layers(config, i)


class Qwen2MoE(Architecture):
    name = "qwen2moe"
    hf_classes = ("Qwen2MoeForCausalLM",)
    hf_model_type = "qwen2_moe"
    keys = (
        *DECODER_KEYS,
        *experts.KEYS,
        Key(
            "{arch}.expert_shared_feed_forward_length",
            ("shared_expert_intermediate_size",),
            "n_ff_shared",
            default=0,
        ),
    )
    config_defaults = Qwen2.config_defaults | {
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
    }
    tensors = (
        EMBEDDING,
        *HEAD,
        *MIXER_NORM,
        *attention.TENSORS,
        *FF_NORM,
        *EXPERT_TENSORS,
        *SHARED_TENSORS,
    )
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "decoder_sparse_step": (1,),
        "mlp_only_layers": ([],),
        "norm_topk_prob": (False,),  # GGUF has no key for it
    }
    reads = ledger.WINDOWS

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        return ledger.windows(config, _slides)

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"))
        return Layer(mixer, Experts.of(values, i, shared_gate=True))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return {"num_experts": hp.n_expert}


ARCHITECTURE = Qwen2MoE()

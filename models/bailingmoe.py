"""Ling and Ring, the first (BailingMoE): llama's attention from one weight, mixtures throughout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import EMBEDDING, FF_NORM, HEAD, LLAMA_KEYS, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts, shared_rows
from ggq.models.layers.rope import ALL_FACTORS
from ggq.models.table import Key, changed, renamed, taken_from

__all__ = ["ARCHITECTURE", "FIXED", "NAMES", "READS"]

FUSED = "attention.query_key_value"
NAMES = {"model.embed_tokens": "model.word_embeddings", "self_attn.o_proj": "attention.dense"}
FIXED = {
    "hidden_act": ledger.SILU,
    "norm_head": (False,),  # the head's columns of length 1
    "norm_softmax": (False,),
    "multi_gate": (False,),
}
READS = (*ledger.WINDOWS, "output_dropout", "router_dtype")


class BailingMoe(Architecture):
    name = "bailingmoe"
    hf_classes = ("BailingMoeForCausalLM",)
    hf_model_type = "bailing_moe"
    exports = False  # transformers has no class for it
    fixed = FIXED | {"first_k_dense_replace": (0,)}  # no reader has other layers for this name
    reads = READS
    peer_factors = ALL_FACTORS
    keys = changed(
        (*LLAMA_KEYS, *experts.KEYS, *experts.WEIGHT_KEYS, experts.DENSE_KEY),
        Key("{arch}.expert_shared_count", ("num_shared_experts",), "n_shared", default=0),
        Key("{arch}.expert_weights_scale", (), "expert_scale", "f32", derive=lambda c: 1.0),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "first_k_dense_replace": 0,
        "num_shared_experts": 0,
        "norm_topk_prob": True,
    }
    tensors = renamed(
        (
            *(EMBEDDING, *HEAD, *MIXER_NORM, *taken_from(FUSED, attention.TENSORS, "packed")),
            *(*FF_NORM, *experts.EXPERT_TENSORS, *shared_rows("mlp.shared_experts")),
        ),
        NAMES,
    )

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        return ledger.windows(config)

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "norm")), Experts.of(values, i))

    def complete(self, values: Values) -> None:
        values["n_ff_shared"] = values["n_shared"] * (values.get("n_ff_expert") or 0)

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = BailingMoe()

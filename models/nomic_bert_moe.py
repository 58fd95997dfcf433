"""nomic-embed-text v2: nomic-bert with plain feed-forwards, every other one a mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models.encoder import Encoder, embedded, encode
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.nomic_bert import LAYER, NomicBert
from ggq.models.table import BLOCK, Key, Tensor, changed, rows

__all__ = ["ARCHITECTURE"]

EXPERTS = f"{LAYER}mlp.experts."


def _experts(gguf: str, hf: str, shape: tuple[str, ...], transform: str = "copy") -> Tensor:
    """Return the row of a stack of experts, which a checkpoint has in one matrix."""
    return Tensor(
        f"{BLOCK}{gguf}_exps.weight", (f"{EXPERTS}mlp.{hf}",), shape, transform, gguf, part=Experts
    )


class NomicBertMoe(Encoder):
    name = "nomic-bert-moe"
    hf_classes = ("NomicBertModel",)
    hf_model_type = "nomic_bert"
    exports = False  # transformers' class has no experts
    reads = (*NomicBert.reads, "moe_impl", "moe_resid_pdrop", "moe_normalize_expert_weights")
    rope_types = NomicBert.rope_types
    hf_prefixes = NomicBert.hf_prefixes
    keys = (
        *NomicBert.keys,
        Key("{arch}.moe_every_n_layers", ("moe_every_n_layers",), "moe_step", required=True),
        Key("{arch}.expert_count", ("num_local_experts", "num_experts"), "n_expert", required=True),
        Key("{arch}.expert_used_count", ("moe_top_k",), "n_expert_used", required=True),
    )
    config_defaults = NomicBert.config_defaults
    peer_lacks = ("ffn_down_sum.bias",)
    fixed = {k: v for k, v in NomicBert.fixed.items() if k != "moe_every_n_layers"} | {
        "activation_function": ("gelu",),
        "hidden_act": ("gelu",),
    }
    tensors = changed(
        NomicBert.tensors,
        *rows("ffn_up", f"{LAYER}mlp.fc1", ("ff", "embd"), input="ffn_in", part=FeedForward),
        *rows("ffn_down", f"{LAYER}mlp.fc2", ("embd", "ff"), input="ffn_act", part=FeedForward),
        *rows(
            "ffn_gate_inp",
            f"{LAYER}mlp.router.layer",
            ("expert", "embd"),
            bias=False,
            role="router",
            input="ffn_in",
            part=Experts,
        ),
        replace(_experts("ffn_up", "w1", ("expert", "ff_expert", "embd")), input="ffn_in"),
        replace(
            _experts("ffn_down", "w2", ("expert", "embd", "ff_expert"), "expert_columns"),
            input="experts_act",
        ),
        Tensor(  # of the experts' sum; llama.cpp's converter leaves it out
            f"{BLOCK}ffn_down_sum.bias",
            (f"{EXPERTS}bias",),
            ("embd",),
            "unless_zero",
            role="bias",
            optional=True,
            f32=True,
            part=Experts,
        ),
        without=("ffn_gate.weight", "ffn_gate.bias"),
    )

    def suits(self, config: Mapping[str, Any]) -> bool:
        return bool(config.get("moe_every_n_layers"))

    def layer(self, values: Values, i: int) -> Layer:
        rope = rotation(values, "neox")
        mixer = Attention.of(values, i, rope, causal=values["causal"], fused=True)
        if i % max(values["moe_step"], 1) != 1:
            return Layer(mixer, FeedForward.of(values, i, activation="gelu", gated=False))
        return Layer(mixer, Experts.of(values, i, activation="gelu", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return encode(ops, embedded(ops), hp)


ARCHITECTURE = NomicBertMoe()

"""Ling and Ring 2.0 (BailingMoE V2): heads normed and half rotated, DeepSeek V3's mixtures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ggq.models import ledger, llama
from ggq.models.bailingmoe import FIXED, NAMES, READS
from ggq.models.base import Architecture
from ggq.models.decoder import (
    DECODER_KEYS,
    EMBEDDING,
    FF_NORM,
    HEAD,
    MIXER_NORM,
    VOCAB_KEY,
    head_width,
)
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts, feed_forward
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts, router_bias, shared_rows
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import share
from ggq.models.table import Key, changed, renamed

__all__ = ["ARCHITECTURE"]

OWN_NAMES = NAMES | {
    "self_attn.qkv_proj": "attention.query_key_value",
    "self_attn.q_norm": "attention.query_layernorm",
    "self_attn.k_norm": "attention.key_layernorm",
}


class BailingMoe2(Architecture):
    name = "bailingmoe2"
    hf_classes = ("BailingMoeV2ForCausalLM",)
    hf_model_type = "bailing_moe_v2"
    exports = False  # transformers has no class for it
    fixed = FIXED | {
        "score_function": ("sigmoid",),
        "use_qk_norm": (True,),
        "use_rmsnorm": (True,),
        "norm_topk_prob": (True,),  # the model's code does not ask for it
    }
    reads = (
        *(*READS, "moe_shared_expert_intermediate_size", "mtp_loss_scaling_factor"),
        "moe_router_enable_expert_bias",  # the tensors say it
    )
    keys = changed(
        (*DECODER_KEYS, VOCAB_KEY, *experts.KEYS, *experts.WEIGHT_KEYS, experts.DENSE_KEY),
        Key("{arch}.rope.dimension_count", (), "rope_dim", derive=share(0.5, head_width)),
        Key("{arch}.expert_shared_count", ("num_shared_experts",), "n_shared", default=0),
        Key(  # of one of them
            "{arch}.expert_shared_feed_forward_length",
            ("moe_intermediate_size",),
            "n_ff_one",
        ),
        Key("{arch}.expert_group_count", ("n_group",), "n_expert_group", default=1),
        Key("{arch}.expert_group_used_count", ("topk_group",), "n_expert_group_used", default=1),
        experts.gating_key("sigmoid"),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "first_k_dense_replace": 0,
        "num_shared_experts": 0,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "n_group": 8,
        "topk_group": 4,
    }
    tensors = renamed(
        (
            *(EMBEDDING, *HEAD, *MIXER_NORM, *attention.FUSED_TENSORS, *attention.QK_NORMS),
            *(*FF_NORM, *feed_forward.TENSORS, *experts.EXPERT_TENSORS),
            router_bias("mlp.gate.expert_bias"),
            *shared_rows("mlp.shared_experts"),
        ),
        OWN_NAMES,
    )

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        yield from ledger.windows(config)
        yield from experts.misfit_groups(config, config.get("num_experts"))
        width = config.get("moe_shared_expert_intermediate_size")
        if width not in (None, config.get("moe_intermediate_size")):
            yield "moe_shared_expert_intermediate_size", width, "it is moe_intermediate_size here"

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), norms="head", fused=True)
        if i < values["n_dense"]:
            return Layer(mixer, FeedForward.of(values, i))
        return Layer(mixer, Experts.of(values, i, gating="sigmoid"))

    def complete(self, values: Values) -> None:
        width = values.get("n_ff_one") or values.get("n_ff_expert") or 0
        values["n_ff_shared"] = values["n_shared"] * width

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        layer = hf_name.removeprefix("model.").removeprefix("layers.").partition(".")[0]
        further = layer.isdigit() and int(layer) >= hp.n_layer  # layers that predict further tokens
        return super().ignores(hf_name, hp) or further

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = BailingMoe2()

"""ERNIE 4.5 with experts: ernie4_5's attention, mixtures behind few dense layers."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, FF_NORM, HEAD, MIXER_NORM
from ggq.models.ernie4_5 import Ernie45
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts, feed_forward
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts, router_bias, shared_rows
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import Key, changed

__all__ = ["ARCHITECTURE"]

SMALLEST_SUM = 1e-12  # of experts' weights, far below any sum of probabilities


def _shared(config: Mapping[str, Any]) -> int | None:
    """Return the columns of the expert that sees every token."""
    count: int = config["moe_num_shared_experts"]
    return count * config["moe_intermediate_size"] or None


class Ernie45MoE(Architecture):
    name = "ernie4_5-moe"
    hf_classes = ("Ernie4_5_MoeForCausalLM",)
    hf_model_type = "ernie4_5_moe"
    fixed = {"hidden_act": ledger.SILU, "moe_norm_min": (SMALLEST_SUM,)}  # noqa: RUF012 - read only
    reads = ("moe_layer_end_index", "moe_use_aux_free", "moe_gate", "moe_capacity")
    keys = changed(
        (*DECODER_KEYS, *experts.KEYS),
        Key("{arch}.expert_count", ("moe_num_experts",), "n_expert", required=True),
        Key("{arch}.expert_used_count", ("moe_k",), "n_expert_used", required=True),
        Key("{arch}.interleave_moe_layer_step", ("moe_layer_interval",), "moe_step", default=1),
        Key("{arch}.leading_dense_block_count", ("moe_layer_start_index",), "n_dense", default=0),
        Key("{arch}.expert_shared_count", ("moe_num_shared_experts",), "n_shared", default=0),
        Key("{arch}.expert_shared_feed_forward_length", (), "n_ff_shared", derive=_shared),
    )
    config_defaults = Ernie45.config_defaults | {
        "moe_num_experts": 64,
        "moe_k": 6,
        "moe_layer_interval": 1,
        "moe_layer_start_index": 1,
        "moe_num_shared_experts": 2,
        "moe_intermediate_size": 1536,
    }
    tensors = (
        *(EMBEDDING, *HEAD, *MIXER_NORM, *attention.TENSORS, *FF_NORM),
        *(*feed_forward.TENSORS, *experts.EXPERT_TENSORS),
        replace(router_bias("mlp.moe_statics.e_score_correction_bias"), hf_shape=("1", "expert")),
        *shared_rows("mlp.shared_experts"),
    )

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        last, n_layer = config.get("moe_layer_end_index"), config["num_hidden_layers"]
        if last not in (None, -1) and last < n_layer - 1:
            yield "moe_layer_end_index", last, "layers behind the last mixture are not converted"

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "norm"))
        if i < values["n_dense"] or (i + 1) % max(values["moe_step"], 1):
            return Layer(mixer, FeedForward.of(values, i))
        return Layer(mixer, Experts.of(values, i, normalize=True))

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        further = hf_name.startswith("model.mtp_")  # predict further tokens; no file holds them
        return super().ignores(hf_name, hp) or further

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        return {"moe_layer_end_index": hp.n_layer - 1}


ARCHITECTURE = Ernie45MoE()

"""dots.llm1: attention with q/k norms, a dense layer, then sigmoid mixtures as DeepSeek V3's."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, FF_NORM, HEAD, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts, feed_forward
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts, router_bias, shared_rows
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import changed

__all__ = ["ARCHITECTURE"]


class Dots1(Architecture):
    name = "dots1"
    hf_classes = ("Dots1ForCausalLM",)
    hf_model_type = "dots1"
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "n_group": (1,),
        "topk_group": (1,),
        "moe_layer_freq": (1,),
    }
    reads = (*ledger.WINDOWS, "scoring_func", "topk_method")
    keys = changed(
        (*DECODER_KEYS, *experts.KEYS, *experts.WEIGHT_KEYS, experts.DENSE_KEY),
        experts.gating_key("sigmoid"),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "num_key_value_heads": 32,
        "n_shared_experts": 0,
        "routed_scaling_factor": 1.0,
        "first_k_dense_replace": 0,
        "norm_topk_prob": False,
    }
    tensors = (
        *(EMBEDDING, *HEAD, *MIXER_NORM, *attention.TENSORS, *attention.QK_NORMS, *FF_NORM),
        *(*feed_forward.TENSORS, *experts.EXPERT_TENSORS),
        router_bias("mlp.gate.e_score_correction_bias"),
        *shared_rows("mlp.shared_experts"),
    )

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        return ledger.windows(config, partial(ledger.upper_layers, first=62), switch=None)

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), norms="head")
        if i < values["n_dense"]:
            return Layer(mixer, FeedForward.of(values, i))
        return Layer(mixer, Experts.of(values, i, gating="sigmoid"))

    def complete(self, values: Values) -> None:
        values["n_ff_shared"] = values["n_shared"] * (values.get("n_ff_expert") or 0)

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = Dots1()

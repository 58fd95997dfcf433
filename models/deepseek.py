"""DeepSeek (the first): llama's attention, a dense layer, then shared and routed experts."""

from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import EMBEDDING, FF_NORM, HEAD, LLAMA_KEYS, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.layers import attention, experts, feed_forward
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.experts import Experts, shared_rows
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import ALL_FACTORS, scaling_or_none
from ggq.models.table import Key, changed, permuted

__all__ = ["ARCHITECTURE"]


class Deepseek(Architecture):
    name = "deepseek"
    hf_classes = ("DeepseekForCausalLM",)
    hf_model_type = "deepseek"
    exports = False  # transformers has no class for it
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "scoring_func": ("softmax",),
        "norm_topk_prob": (False,),  # llama.cpp's graph has no other, whatever a key says
        "moe_layer_freq": (1,),
    }
    peer_factors = ALL_FACTORS
    keys = changed(
        (*LLAMA_KEYS, *experts.KEYS, experts.DENSE_KEY),
        Key("{arch}.rope.scaling.type", (), "rope_scaling", "str", derive=scaling_or_none),
        Key("{arch}.expert_shared_count", ("n_shared_experts",), "n_shared", default=0),
        Key("{arch}.expert_weights_scale", (), "expert_scale", "f32", derive=lambda c: 1.0),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "first_k_dense_replace": 0,
        "norm_topk_prob": False,
    }
    tensors = permuted(
        (
            *(EMBEDDING, *HEAD, *MIXER_NORM, *attention.TENSORS, *FF_NORM),
            *(*feed_forward.TENSORS, *experts.EXPERT_TENSORS),
            *shared_rows("mlp.shared_experts"),
        )
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "norm"))
        if i < values["n_dense"] or not values["n_expert"]:
            return Layer(mixer, FeedForward.of(values, i))
        return Layer(mixer, Experts.of(values, i))

    def complete(self, values: Values) -> None:
        values["n_ff_shared"] = values["n_shared"] * (values.get("n_ff_expert") or 0)

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = Deepseek()

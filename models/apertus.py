"""Apertus: like llama with norms of each head and xIELU, whose numbers are each layer's own."""

from __future__ import annotations

from typing import Any

from ggq.models import llama
from ggq.models.base import Architecture
from ggq.models.decoder import EMBEDDING, FF_NORM, HEAD, LLAMA_KEYS, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import UNGATED_TENSORS, FeedForward
from ggq.models.layers.rope import STORED
from ggq.models.table import Key, renamed

__all__ = ["ARCHITECTURE"]

NUMBERS = ("alpha_p", "alpha_n", "beta", "eps")  # tensors of one number in a checkpoint
NAMES = {
    "input_layernorm": "attention_layernorm",
    "post_attention_layernorm": "feedforward_layernorm",
}


class Apertus(Architecture):
    name = "apertus"
    hf_classes = ("ApertusForCausalLM",)
    hf_model_type = "apertus"
    exports = False  # numbers of its keys are tensors there
    keys = (
        *LLAMA_KEYS,
        *(Key(f"xielu.{n}", (f"xielu_{n}",), f"xielu_{n}", "f32s", True) for n in NUMBERS),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 65536,
        "rms_norm_eps": 1e-5,
        "rope_theta": 12000000.0,
    }
    fixed = {"hidden_act": ("xielu",), "post_norm": (False,)}  # noqa: RUF012 - read only
    reads = ("qk_norm", "mlp_bias")
    peer_factors = (STORED,)
    tensors = renamed(
        (
            *(EMBEDDING, *HEAD, *MIXER_NORM, *attention.TENSORS, *attention.QK_NORMS, *FF_NORM),
            *UNGATED_TENSORS,
        ),
        NAMES,
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), norms="head")
        numbers = tuple(values.at(f"xielu_{n}", i, "numbers of xIELU") for n in NUMBERS)
        return Layer(mixer, FeedForward.of(values, i, gated=False, xielu=numbers))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = Apertus()

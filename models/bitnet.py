"""BitNet b1.58: like llama with norms before the last weight of each part, squared ReLUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.models import llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_TENSORS, LLAMA_KEYS
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import Key, absorbed_by, changed, norm

__all__ = ["ARCHITECTURE"]

SQUARED = "relu2"


def _activation(config: Mapping[str, Any]) -> str | None:
    """Return the activation where it is not SiLU, which files that say nothing have."""
    return SQUARED if config.get("hidden_act") == SQUARED else None


class BitNet(Architecture):
    name = "bitnet"
    hf_classes = ("BitNetForCausalLM",)
    hf_model_type = "bitnet"
    keys = (
        *LLAMA_KEYS,
        Key("{arch}.hidden_activation", (), "activation", "str", derive=_activation),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": SQUARED,
    }
    fixed = {"hidden_act": (SQUARED, "silu")}  # noqa: RUF012 - read only
    tensors = changed(
        absorbed_by(DECODER_TENSORS, {"attn_v": "attn_sub_norm", "ffn_up": "ffn_sub_norm"}),
        *norm("attn_sub_norm", "self_attn.attn_sub_norm", "o"),
        *norm("ffn_sub_norm", "mlp.ffn_sub_norm", "ff"),
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), sub_norm=True)
        kind = SQUARED if values.get("activation") == SQUARED else "silu"
        eps = values["norm_eps"]
        return Layer(mixer, FeedForward.of(values, i, activation=kind, sub_norm_eps=eps))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = BitNet()

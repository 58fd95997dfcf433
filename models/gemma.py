"""Gemma 1: like llama with scaled embeddings, norms around 1 and GELU."""

from typing import Any

from ggq.models import granite, ledger
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, DECODER_TENSORS
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import changed, plus_one

__all__ = ["ARCHITECTURE"]

GELU = (*ledger.GELU, "gelu")  # the models mean the approximation, whatever configs say


class Gemma(Architecture):
    name = "gemma"
    hf_classes = ("GemmaForCausalLM",)
    hf_model_type = "gemma"
    keys = DECODER_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tensors = plus_one(changed(DECODER_TENSORS, without=("output.weight",)))
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": GELU,
        "hidden_activation": GELU,
        "use_bidirectional_attention": (False,),
    }

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"))
        return Layer(mixer, FeedForward.of(values, i, activation="gelu_tanh"))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return granite.forward(ops, hp)

    def complete(self, values: Values) -> None:
        values["embedding_scale"] = float(values["n_embd"]) ** 0.5

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        return super().ignores(hf_name, hp) or hf_name.endswith("lm_head.weight")  # always tied


ARCHITECTURE = Gemma()

"""EXAONE 3, 3.5 and Deep: llama with halves of heads that rotate, in GPT-2's names."""

from __future__ import annotations

from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, DECODER_TENSORS, ROPE_DIM_KEY
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.rope import STORED
from ggq.models.table import Key, changed, renamed

__all__ = ["ARCHITECTURE"]

NAMES = {
    "model.embed_tokens": "transformer.wte",
    "model.norm": "transformer.ln_f",
    "model.layers": "transformer.h",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "self_attn.o_proj": "attn.attention.out_proj",
    "self_attn": "attn.attention",
    "gate_proj": "c_fc_0",
    "up_proj": "c_fc_1",
    "down_proj": "c_proj",
}


class Exaone(Architecture):
    name = "exaone"
    hf_classes = ("ExaoneForCausalLM", "ExaoneModel")
    hf_model_type = "exaone"
    hf_base = "transformer."
    keys = changed(
        (*DECODER_KEYS, ROPE_DIM_KEY),
        Key("{arch}.block_count", ("num_layers", "num_hidden_layers"), "n_layer", required=True),
        Key(
            "{arch}.attention.layer_norm_rms_epsilon",
            ("layer_norm_epsilon", "rms_norm_eps"),
            "norm_eps",
            "f32",
            required=True,
        ),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
    }
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        "activation_function": ledger.SILU,
    }
    reads = ("embed_dropout", "head_dim", "num_hidden_layers", "rms_norm_eps")
    peer_factors = (STORED,)
    tensors = renamed(DECODER_TENSORS, NAMES)

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "neox")), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = Exaone()

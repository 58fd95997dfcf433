"""InternLM 2 and 2.5: llama in other names, one weight of each key and value after its queries."""

from typing import Any

from ggq.models import ledger, llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_TENSORS, LLAMA_KEYS
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import renamed, taken_from
from ggq.models.vocabulary import LLAMA_VOCAB

__all__ = ["ARCHITECTURE"]

NAMES = {
    "embed_tokens": "tok_embeddings",
    "lm_head": "output",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}


class InternLm2(Architecture):
    name = "internlm2"
    hf_classes = ("InternLM2ForCausalLM", "InternLM2Model")
    hf_model_type = "internlm2"
    exports = False  # transformers has no class for it
    keys = LLAMA_KEYS
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    fixed = {"hidden_act": ledger.SILU}  # noqa: RUF012 - read only
    reads = ("bias",)
    rope_types = ("default", "dynamic", "linear")
    tensors = renamed(taken_from("attention.wqkv", DECODER_TENSORS, "grouped"), NAMES)
    vocab = LLAMA_VOCAB

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(Attention.of(values, i, rotation(values, "norm")), FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)


ARCHITECTURE = InternLm2()

"""CodeShell 7B: StarCoder 2's graph in GPT-2's names, with one weight for queries, keys, values."""

from __future__ import annotations

from typing import Any

from ggq.models import starcoder2
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, HEAD, LAYER_NORM_KEY
from ggq.models.encoder import encoder_norm
from ggq.models.gpt2 import NAMES, SETTINGS, ff_key
from ggq.models.hparams import HParams
from ggq.models.layers import attention
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import UNGATED_TENSORS, FeedForward
from ggq.models.table import BLOCK, LAYER, Key, changed, renamed, sourced

__all__ = ["ARCHITECTURE"]


class CodeShell(Architecture):
    name = "codeshell"
    hf_classes = ("CodeShellForCausalLM",)
    hf_model_type = "kclgpt"
    hf_base = "transformer."
    exports = False  # transformers has no class for it
    keys = changed(
        sourced(DECODER_KEYS, SETTINGS),
        ff_key("n_embd", "n_inner"),
        Key("{arch}.attention.head_count_kv", ("num_query_groups",), "n_head_kv", "u32s"),
        LAYER_NORM_KEY,
        without=("{arch}.attention.layer_norm_rms_epsilon",),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "layer_norm_epsilon": 1e-5,
        "rope_theta": 10000.0,
    }
    fixed = {  # noqa: RUF012 - read only
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "position_embedding_type": ("rope",),
        "group_query_attention": (True,),
    }
    reads = ("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "n_ctx")
    rope_types = ("default",)
    tensors = renamed(
        (
            EMBEDDING,
            *encoder_norm("output_norm", "model.norm"),
            HEAD[1],
            *encoder_norm(f"{BLOCK}attn_norm", f"{LAYER}input_layernorm"),
            *attention.FUSED_TENSORS,
            *encoder_norm(f"{BLOCK}ffn_norm", f"{LAYER}post_attention_layernorm"),
            *UNGATED_TENSORS,
        ),
        NAMES,
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), fused=True)
        return Layer(mixer, FeedForward.of(values, i, activation="gelu_tanh", gated=False))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return starcoder2.forward(ops, hp)

    def ignores(self, hf_name: str, hp: HParams) -> bool:
        return super().ignores(hf_name, hp) or hf_name.endswith((".attn.bias", "inv_freq"))


ARCHITECTURE = CodeShell()

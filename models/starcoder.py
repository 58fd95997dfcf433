"""StarCoder 1 and SantaCoder (gpt_bigcode): GPT-2's layers with one key-value head for all."""

from __future__ import annotations

from typing import Any

from ggq.models.gpt2 import GPT_KEYS, GPT_TENSORS, Gpt
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import Key, changed, each_head

__all__ = ["ARCHITECTURE"]


class Starcoder(Gpt):
    name = "starcoder"
    hf_classes = ("GPTBigCodeForCausalLM", "GPTBigCodeModel")
    hf_model_type = "gpt_bigcode"
    keys = changed(
        GPT_KEYS,
        Key(
            "{arch}.attention.head_count_kv",
            (),
            "n_head_kv",
            "u32s",
            derive=lambda c: 1 if c.get("multi_query", True) else c.get("n_head"),
        ),
    )
    fixed = {  # noqa: RUF012 - read only
        "activation_function": ("gelu_pytorch_tanh", "gelu_new", "gelu_fast"),
        "scale_attn_weights": (True,),
        "add_cross_attention": (False,),
    }
    reads = (
        *("hidden_act", "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32"),
        *(
            "inference_runner",
            "pre_allocate_kv_cache",
            "validate_runner_input",
            "num_key_value_heads",
        ),
        *("max_batch_size", "max_sequence_length", "pad_key_length", "num_key_value_heads"),
    )
    tensors = each_head(GPT_TENSORS)

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, None, fused=True)
        return Layer(mixer, FeedForward.of(values, i, activation="gelu_tanh", gated=False))

    def export_config(self, hp: HParams) -> dict[str, Any]:
        mixer = hp.find(Attention)
        assert mixer is not None
        shared = mixer.n_head_kv < mixer.n_head
        return {"activation_function": "gelu_pytorch_tanh", "multi_query": shared}


ARCHITECTURE = Starcoder()

"""StarCoder 1 and SantaCoder (gpt_bigcode): GPT-2's layers with one key-value head for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggq.models.gpt2 import GPT_KEYS, GPT_TENSORS, Gpt
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import Key, changed, each_head

__all__ = ["ARCHITECTURE"]


def _exact(config: Mapping[str, Any]) -> str | None:
    """Return "gelu" where the exact function is meant; a file that says nothing has tanh's."""
    return "gelu" if config.get("activation_function") == "gelu" else None


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
        Key("{arch}.hidden_activation", (), "activation", "str", derive=_exact),
    )
    fixed = {  # noqa: RUF012 - read only
        "activation_function": ("gelu", "gelu_pytorch_tanh", "gelu_new", "gelu_fast"),
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
        kind = "gelu" if values.get("activation") == "gelu" else "gelu_tanh"
        return Layer(mixer, FeedForward.of(values, i, activation=kind, gated=False))

    def export_config(self, hp: HParams) -> dict[str, Any]:
        mixer = hp.find(Attention)
        assert mixer is not None
        feed, shared = hp.find(FeedForward), mixer.n_head_kv < mixer.n_head
        exact = feed is not None and feed.activation == "gelu"
        kind = "gelu" if exact else "gelu_pytorch_tanh"
        return {"activation_function": kind, "multi_query": shared}


ARCHITECTURE = Starcoder()

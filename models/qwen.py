"""Qwen 1: llama with one biased weight for queries, keys and values, in GPT-2's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ggq.models import llama
from ggq.models.base import Architecture
from ggq.models.decoder import DECODER_KEYS, EMBEDDING, FF_NORM, HEAD, MIXER_NORM
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward, width
from ggq.models.table import Key, changed, renamed

__all__ = ["ARCHITECTURE"]

NAMES = {
    "model.embed_tokens": "transformer.wte",
    "model.norm": "transformer.ln_f",
    "model.layers": "transformer.h",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "self_attn.qkv_proj": "attn.c_attn",
    "self_attn.o_proj": "attn.c_proj",
    "up_proj": "w1",
    "gate_proj": "w2",
    "down_proj": "c_proj",
}


class Qwen(Architecture):
    name = "qwen"
    hf_classes = ("QWenLMHeadModel",)
    hf_model_type = "qwen"
    hf_base = "transformer."
    exports = False  # transformers has no class for it
    keys = changed(
        DECODER_KEYS,
        Key("{arch}.attention.head_count_kv", (), "n_head_kv", "u32s"),
        Key("{arch}.rope.freq_base", ("rotary_emb_base",), "rope_base", "f32"),
        Key("{arch}.rope.dimension_count", ("kv_channels",), "rope_dim"),
        Key(
            "{arch}.attention.layer_norm_rms_epsilon",
            ("layer_norm_epsilon",),
            "norm_eps",
            "f32",
            required=True,
        ),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "layer_norm_epsilon": 1e-6,
        "rotary_emb_base": 10000,
        "kv_channels": 128,
    }
    fixed = {  # noqa: RUF012 - read only
        "no_bias": (True,),
        "rotary_pct": (1.0,),
        "scale_attn_weights": (True,),
    }
    reads = (  # the first two have no effect up to the trained length
        *("use_dynamic_ntk", "use_logn_attn", "seq_length", "attn_dropout_prob"),
        *("emb_dropout_prob", "bf16", "fp16", "fp32", "onnx_safe", "softmax_in_fp32"),
        *("use_cache_kernel", "use_cache_quantization"),
    )
    rope_types = ("default",)
    tensors = renamed(
        (
            *(EMBEDDING, *HEAD, *MIXER_NORM, *attention.FUSED_TENSORS, *FF_NORM),
            *feed_forward.TENSORS,
        ),
        NAMES,
    )

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(values, i, rotation(values, "neox"), fused=True)
        return Layer(mixer, FeedForward(width(values, i) // 2, layer=i))  # of gate and up together

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp)

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        """Yield heads whose width is not the embedding's share: no file of this name says it."""
        n_embd, n_head = config.get("hidden_size"), config.get("num_attention_heads")
        if n_embd and n_head and config["kv_channels"] != n_embd // n_head:
            why = f"qwen is converted with hidden_size / num_attention_heads ({n_embd // n_head})"
            yield "kv_channels", config["kv_channels"], why


ARCHITECTURE = Qwen()

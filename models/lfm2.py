"""Liquid LFM2: most layers a short gated convolution, few attention with q/k norms."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ggq.models import llama
from ggq.models.base import Architecture
from ggq.models.decoder import (
    DECODER_KEYS,
    EMBEDDING,
    FF_NORM,
    HEAD,
    MIXER_NORM,
    VOCAB_KEY,
    head_width,
)
from ggq.models.hparams import HParams
from ggq.models.layers import attention, feed_forward, short_conv
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Part, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.short_conv import ShortConvolution
from ggq.models.table import Key, Tensor, changed, renamed

__all__ = ["ARCHITECTURE", "Lfm2", "lfm2_rows"]

FINAL_NORM = "token_embd_norm"
RENAMED = {  # HF's names in this class
    "model.norm.": "model.embedding_norm.",
    "input_layernorm": "operator_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "self_attn.out_proj",
    "q_norm": "q_layernorm",
    "k_norm": "k_layernorm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}


def lfm2_rows(*feeds: Tensor) -> tuple[Tensor, ...]:
    """Return the rows of a model whose feed-forward layers have the rows ``feeds``."""
    final = replace(HEAD[0], gguf=f"{FINAL_NORM}.weight")
    head = replace(HEAD[1], absorbs=f"{FINAL_NORM}.weight")
    both = (*attention.TENSORS, *attention.QK_NORMS)
    layer = (*MIXER_NORM, *both, *FF_NORM, *feeds)
    return renamed((EMBEDDING, final, head, *layer, *short_conv.TENSORS), RENAMED)


def _heads_kv(config: Mapping[str, Any]) -> list[Any] | None:
    """Return the key-value heads of each layer, none in a convolution."""
    kinds, heads = config.get("layer_types"), config.get("num_key_value_heads")
    full, n_layer = config.get("full_attn_idxs"), config.get("num_hidden_layers")
    if kinds is None and full is not None and isinstance(n_layer, int):
        kinds = ["full_attention" if i in full else "conv" for i in range(n_layer)]
    return [0 if kind == "conv" else heads for kind in kinds] if kinds else None


def _ff(config: Mapping[str, Any]) -> Any:
    """Return the feed-forward width, which transformers computes from three settings."""
    width = config.get("block_ff_dim") or config.get("intermediate_size")
    if isinstance(width, int) and config.get("block_auto_adjust_ff_dim"):
        width = int(config.get("block_ffn_dim_multiplier", 1.0) * int(2 * width / 3))
        unit = config.get("block_multiple_of", 256)
        return -(-width // unit) * unit
    return width


class Lfm2(Architecture):
    name = "lfm2"
    hf_classes: ClassVar[tuple[str, ...]] = ("Lfm2ForCausalLM", "LFM2ForCausalLM")
    hf_model_type = "lfm2"
    fixed = {"use_pos_enc": (True,), "block_use_swiglu": (True,)}  # noqa: RUF012 - read only
    reads = (
        *("block_dim", "block_norm_eps", "block_mlp_init_scale", "block_out_init_scale"),
        *("block_use_xavier_init", "conv_dim", "conv_dim_out", "conv_use_xavier_init"),
        *("num_heads", "conv_bias", "full_attn_idxs", "theta", "intermediate_size"),
    )
    keys = changed(
        DECODER_KEYS,
        Key("{arch}.feed_forward_length", (), "n_ff", "u32s", required=True, derive=_ff),
        Key(
            "{arch}.attention.head_count_kv", (), "n_head_kv", "u32s", True, None, derive=_heads_kv
        ),
        Key("{arch}.attention.layer_norm_rms_epsilon", ("norm_eps",), "norm_eps", "f32", True),
        Key("{arch}.attention.key_length", (), "head_dim", derive=head_width),
        Key("{arch}.attention.value_length", (), "head_dim_v", derive=head_width),
        VOCAB_KEY,
        *short_conv.KEYS,
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 128000,
        "norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "conv_L_cache": 3,
        "block_auto_adjust_ff_dim": True,
    }
    tensors = lfm2_rows(*feed_forward.TENSORS)

    def layer(self, values: Values, i: int) -> Layer:
        return Layer(self.mixer(values, i), FeedForward.of(values, i))

    def mixer(self, values: Values, i: int) -> Part:
        """Return layer ``i``'s attention, or its convolution where it has no key-value heads."""
        if values.at("n_head_kv", i, "key-value head counts") == 0:
            return ShortConvolution.of(values, i)
        return Attention.of(values, i, rotation(values, "neox"), norms="head")

    def forward(self, ops: Any, hp: HParams) -> Any:
        return llama.forward(ops, hp, final_norm=FINAL_NORM)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        mixers = [layer.find(Attention) for layer in hp.layers]
        dense = next((f for layer in hp.layers if (f := layer.find(FeedForward))), None)
        made: dict[str, Any] = {
            "hidden_act": None,
            "layer_types": ["full_attention" if m else "conv" for m in mixers],
            "num_key_value_heads": max([m.n_head_kv for m in mixers if m], default=hp.n_head),
        }
        if dense is not None:
            made |= {"intermediate_size": dense.n_ff, "block_auto_adjust_ff_dim": False}
        return made


ARCHITECTURE = Lfm2()

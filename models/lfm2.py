"""Liquid LFM2: most layers a short gated convolution, few attention with q/k norms."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ggq.models.base import Key, Tensor
from ggq.models.blocks import Decoder
from ggq.models.keys import DECODER_KEYS, changed, head_width
from ggq.models.tables import DECODER_TENSORS, QK_NORMS

__all__ = ["ARCHITECTURE", "Lfm2", "lfm2_rows"]

BLOCK, LAYER = "blk.{i}.", "model.layers.{i}."
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


def _row(row: Tensor) -> Tensor:
    """Return a decoder row under LFM2's names, attention's only where there is attention."""
    hf = row.hf
    for old, new in RENAMED.items():
        hf = tuple(name.replace(old, new) for name in hf)
    gguf = row.gguf.replace("output_norm.", "token_embd_norm.")
    absorbs = (row.absorbs or "").replace("output_norm.", "token_embd_norm.") or None
    mixes = row.gguf.startswith(f"{BLOCK}attn_") and "attn_norm" not in row.gguf
    only = "attention" if mixes else row.only
    return replace(row, gguf=gguf, hf=hf, absorbs=absorbs, only=only)


def _convolution(name: str, hf: str, shape: tuple[str, str], **more: Any) -> Tensor:
    gguf, source = f"{BLOCK}shortconv.{name}.weight", (f"{LAYER}conv.{hf}.weight",)
    return Tensor(gguf, source, shape, role="shortconv", only="recurrent", **more)


CONVOLUTIONS = (
    _convolution("conv", "conv", ("channels", "taps"), f32=True),
    _convolution(
        "in_proj",
        "in_proj",
        ("3*embd", "embd"),
        input="attn_in",
        absorbs=f"{BLOCK}attn_norm.weight",
    ),
    _convolution("out_proj", "out_proj", ("embd", "embd"), input="conv_out"),
)


def lfm2_rows(decoder: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return decoder rows under LFM2's names, with the convolutions."""
    return (*(_row(row) for row in (*decoder, *QK_NORMS)), *CONVOLUTIONS)


def _heads_kv(config: Mapping[str, Any]) -> list[int] | None:
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


class Lfm2(Decoder):
    name = "lfm2"
    hf_classes = ("Lfm2ForCausalLM", "LFM2ForCausalLM")
    hf_model_type = "lfm2"
    rope_kind = "neox"
    exports = False
    keys = changed(
        DECODER_KEYS,
        Key("{arch}.feed_forward_length", (), "n_ff", "u32s", required=True, derive=_ff),
        Key(
            "{arch}.attention.head_count_kv", (), "n_head_kv", "u32s", True, None, derive=_heads_kv
        ),
        Key("{arch}.attention.layer_norm_rms_epsilon", ("norm_eps",), "norm_eps", "f32", True),
        Key("{arch}.attention.key_length", (), "head_dim", derive=head_width),
        Key("{arch}.attention.value_length", (), "head_dim_v", derive=head_width),
        Key("{arch}.vocab_size", ("vocab_size",), "n_vocab"),
        Key("{arch}.shortconv.l_cache", ("conv_L_cache",), "taps", required=True),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 128000,
        "norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "conv_L_cache": 3,
        "block_auto_adjust_ff_dim": True,
    }
    tensors = lfm2_rows(DECODER_TENSORS)

    def finish(self, values: dict[str, Any]) -> dict[str, Any]:
        heads = values["n_head_kv"]
        recurrent = tuple(n == 0 for n in heads) if isinstance(heads, tuple) else ()
        return values | {"recurrent_layers": recurrent, "n_channels": values["n_embd"]}


ARCHITECTURE = Lfm2()

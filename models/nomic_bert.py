"""nomic-embed-text v1 and v1.5: BERT with rotary positions and gated feed-forwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ggq.models.encoder import ENCODER_KEYS, Encoder, embedded, embedding, encode, encoder_norm
from ggq.models.hparams import HParams
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.table import Key, rows

__all__ = ["ARCHITECTURE"]

LAYER = "encoder.layers.{i}."


def _context(config: Mapping[str, Any]) -> int | None:
    """Return the trained length: beyond it the models would need rope scaling."""
    lengths = (config.get("n_positions"), config.get("max_trained_positions"))
    return min((n for n in lengths if n), default=None)


class NomicBert(Encoder):
    name = "nomic-bert"
    hf_classes = ("NomicBertModel",)
    hf_model_type = "nomic_bert"
    reads = (
        *("rotary_scaling_factor", "scale_attn_weights", "max_trained_positions", "n_positions"),
        *("type_vocab_size", "layer_norm_epsilon", "pad_vocab_size_multiple", "head_dim"),
        *("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"),  # the tensors say it
    )
    rope_types = ("default",)
    hf_prefixes = ("", "bert.")
    keys = (
        *(replace(k, derive=_context) if k.attr == "n_ctx_train" else k for k in ENCODER_KEYS),
        Key(
            "{arch}.rope.freq_base",
            ("rotary_emb_base", "rope_parameters.rope_theta"),
            "rope_base",
            "f32",
        ),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "layer_norm_epsilon": 1e-12,
        "type_vocab_size": 2,
    }
    fixed = {  # noqa: RUF012 - what the published models have, read only
        "prenorm": (False,),
        "rotary_emb_fraction": (1.0,),
        "rotary_emb_interleaved": (False,),
        "rotary_emb_scale_base": (None,),
        "activation_function": ("swiglu",),
        "hidden_act": ("silu",),
        "parallel_block": (False,),
        "moe_every_n_layers": (0,),
        "ffn_div": (1, 1.0),
        "num_shared_experts": (0,),
        "expert_choice_router": (False,),
    }
    tensors = (
        embedding("token_embd", "word", "vocab", role="token_embd"),
        embedding("token_types", "token_type", "token_types", f32=True, role="kept", optional=True),
        *encoder_norm("token_embd_norm", "emb_ln"),
        *rows("attn_qkv", f"{LAYER}attn.Wqkv", ("q+k+v", "embd"), input="attn_in"),
        *rows("attn_output", f"{LAYER}attn.out_proj", ("embd", "o"), input="attn_out"),
        *encoder_norm("blk.{i}.attn_output_norm", f"{LAYER}norm1"),
        *rows("ffn_up", f"{LAYER}mlp.fc11", ("ff", "embd"), input="ffn_in"),
        *rows("ffn_gate", f"{LAYER}mlp.fc12", ("ff", "embd"), input="ffn_in"),
        *rows("ffn_down", f"{LAYER}mlp.fc2", ("embd", "ff"), input="ffn_act"),
        *encoder_norm("blk.{i}.layer_output_norm", f"{LAYER}norm2"),
    )

    def suits(self, config: Mapping[str, Any]) -> bool:
        return not config.get("moe_every_n_layers")

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        sizes = (("hidden_size", "n_embd"), ("num_attention_heads", "n_head"))
        n, heads = (next((config[k] for k in names if config.get(k)), 0) for names in sizes)
        if (width := config.get("head_dim")) and width * heads != n:
            yield "head_dim", width, "only hidden_size / num_attention_heads is converted"

    def layer(self, values: Values, i: int) -> Layer:
        mixer = Attention.of(
            values, i, rotation(values, "neox"), causal=values["causal"], fused=True
        )
        return Layer(mixer, FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        return encode(ops, embedded(ops), hp)


ARCHITECTURE = NomicBert()

"""Falcon H1: attention and Mamba-2 side by side in every layer, weights times many factors."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ggq.models import ledger
from ggq.models.base import Architecture
from ggq.models.decoder import (
    DECODER_KEYS,
    DECODER_TENSORS,
    VOCAB_KEY,
    logits,
    with_head_width,
)
from ggq.models.hparams import HParams
from ggq.models.layers import mamba2
from ggq.models.layers.attention import Attention, rotation
from ggq.models.layers.base import Layer, Values
from ggq.models.layers.beside import Beside
from ggq.models.layers.feed_forward import FeedForward
from ggq.models.layers.linear import rms_norm
from ggq.models.layers.mamba2 import Mamba2
from ggq.models.table import BLOCK, Key, Tensor, changed, renamed

__all__ = ["ARCHITECTURE"]

FF_NORM = f"{BLOCK}ffn_norm"  # these files call it so, without "weight"
NAMES = {
    "post_attention_layernorm": "pre_ff_layernorm",
    "mlp.": "feed_forward.",
    "model.norm": "model.final_layernorm",
}
ONE_EACH = {"mlp_multipliers": 2, "ssm_multipliers": 5}
FACTORS = (
    *("attention_in_multiplier", "attention_out_multiplier", "ssm_in_multiplier"),
    *("ssm_out_multiplier", "key_multiplier", "lm_head_multiplier", "embedding_multiplier"),
)


def _product(*names: str) -> Callable[[Mapping[str, Any]], Any]:
    return lambda config: np.prod([config[name] for name in names])


def _space(config: Mapping[str, Any]) -> Any:
    """Return the factor of each row of the state space's first weight: gate, x, B, C, steps."""
    inner, group = _inner(config), config["mamba_n_groups"] * config["mamba_d_state"]
    widths = (inner, inner, group, group, config["mamba_n_heads"])
    return np.repeat(config["ssm_multipliers"], widths) * config["ssm_in_multiplier"]


SCALED: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "token_embd": _product("embedding_multiplier"),
    "output": _product("lm_head_multiplier"),
    f"{BLOCK}attn_q": _product("attention_in_multiplier"),
    f"{BLOCK}attn_k": _product("attention_in_multiplier", "key_multiplier"),
    f"{BLOCK}attn_v": _product("attention_in_multiplier"),
    f"{BLOCK}attn_output": _product("attention_out_multiplier"),
    f"{BLOCK}ssm_in": _space,
    f"{BLOCK}ssm_out": _product("ssm_out_multiplier"),
    f"{BLOCK}ffn_gate": lambda config: config["mlp_multipliers"][0],
    f"{BLOCK}ffn_down": lambda config: config["mlp_multipliers"][1],
}


def _inner(config: Mapping[str, Any]) -> int:
    given = config.get("mamba_d_ssm", 1024)  # null is the usual width
    return int(given or config["mamba_expand"] * config["hidden_size"])


def _tensors() -> tuple[Tensor, ...]:
    found = []
    for row in renamed((*DECODER_TENSORS, *mamba2.TENSORS), NAMES):
        name = row.gguf.removesuffix(".weight")
        scaled = replace(row, factor=SCALED.get(name))
        if name == FF_NORM:
            scaled = replace(scaled, gguf=FF_NORM)
        if row.absorbs == f"{FF_NORM}.weight":
            scaled = replace(scaled, absorbs=FF_NORM)
        found.append(scaled)
    return tuple(found)


class FalconH1(Architecture):
    name = "falcon-h1"
    hf_classes = ("FalconH1ForCausalLM",)
    hf_model_type = "falcon_h1"
    fixed = {  # noqa: RUF012 - read only
        "hidden_act": ledger.SILU,
        **dict.fromkeys(
            ("attention_bias", "mlp_bias", "projectors_bias", "mamba_proj_bias"), (False,)
        ),
    }
    reads = (
        *FACTORS,
        *ONE_EACH,
        *(
            "mamba_d_head",
            "mamba_expand",
            "mamba_conv_bias",
            "mamba_rms_norm",
            "mamba_norm_before_gate",
        ),
        *("time_step_limit", "num_logits_to_keep", "mamba_use_mlp", "attn_layer_indices"),
    )
    keys = changed(
        (*with_head_width(DECODER_KEYS), VOCAB_KEY, *mamba2.KEYS),
        Key("{arch}.ssm.inner_size", (), "ssm_inner", required=True, derive=_inner),
    )
    config_defaults = {  # noqa: RUF012 - read only
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "num_key_value_heads": 8,
        "mamba_d_conv": 4,
        "mamba_d_state": 256,
        "mamba_expand": 2,
        "mamba_n_groups": 1,
        "mamba_n_heads": 128,
        "mamba_norm_before_gate": True,
        **dict.fromkeys(FACTORS, 1.0),
        **{name: (1.0,) * n for name, n in ONE_EACH.items()},
    }
    tensors = _tensors()

    def conflicts(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
        yield from mamba2.limits(config)
        if config.get("mamba_rms_norm") and config["mamba_norm_before_gate"]:
            yield "mamba_norm_before_gate", True, "the norm is behind the gate here"
        for name, n in ONE_EACH.items():
            if len(config[name]) != n:
                yield name, config[name], f"{n} numbers are needed"
        one, other = (config[f"{name}_multiplier"] for name in ("lm_head", "embedding"))
        if config.get("tie_word_embeddings") and one != other:
            yield "lm_head_multiplier", one, f"the embedding, of {other}, is the head, too"

    def layer(self, values: Values, i: int) -> Layer:
        attention = Attention.of(values, i, rotation(values, "neox"))
        mixer = Beside(attention, Mamba2.of(values, i), layer=i)
        return Layer(mixer, FeedForward.of(values, i))

    def forward(self, ops: Any, hp: HParams) -> Any:
        x = ops.embed("token_embd.weight")
        for layer in hp.layers:
            normed = rms_norm(ops, x, f"{layer.prefix}attn_norm", hp.norm_eps)
            x = ops.add(x, layer.mixer.forward(ops, normed))
            normed = ops.norm(x, f"{layer.prefix}ffn_norm", hp.norm_eps, kind="rms")
            x = ops.add(x, layer.feed.forward(ops, normed))
        return logits(ops, x, hp)

    def export_config(self, hp: HParams) -> dict[str, Any]:
        part = hp.find(Mamba2)
        assert part is not None
        return {
            "mamba_d_ssm": part.inner,
            "mamba_d_head": part.head_dim,
            "mamba_norm_before_gate": False,
        }


ARCHITECTURE = FalconH1()
